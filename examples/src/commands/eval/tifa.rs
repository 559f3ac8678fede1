//! `selma eval tifa`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::ValueEnum;
use selma::NamedEmbedder;
use selma_diffusion::sentences::SentenceEncoder;
use selma_durable::to_json;
use selma_eval::tifa::{ChoiceMethod, TifaAnswers, TifaPrompt, TifaResult, TifaSet, ask, score};
use selma_eval::{Bootstrap, ChatPrompt, EmbedderId, ImageFolder, Vqa};

use super::judge::{COMPUTING, Judge, JudgeArgs};
use super::{estimate_row, some_answered, unanswered};
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;
use crate::table::columns;
use crate::terminal::print;

/// Measure faithfulness by multiple-choice questions about each prompt (TIFA, arXiv 2303.11897).
///
/// The score is the mean over prompts of the share of questions that are answered from the picture as the prompt says.
/// The questions come from a JSON file in the form of TIFA v1.0, the pictures from a folder with ID.png for each prompt. An answer
/// that is no choice is taken for one: with --embedder for the one with the nearest sentence embedding, as TIFA's program does it; without, but
/// for case and punctuation, by its words, else by the edit distance.
/// Results of TIFA's program are scored with --answers instead of --images, by the choices that it found.
/// Intervals are 95% and take the prompts, not the questions, as independent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma eval tifa --images drawn --questions tifa_v1.0_question_answers.json --vqa openai:http://localhost:8000/v1#qwen2.5-vl --cache answers.jsonl
  selma eval tifa --images drawn --questions tifa_v1.0_question_answers.json --vqa blip:blip-vqa-base --embedder all-mpnet-base-v2
  selma eval tifa --answers results.json --questions tifa_v1.0_question_answers.json")]
pub struct Tifa {
    /// Questions, in the form of TIFA's question_answers.json.
    #[arg(long, value_name = "JSON")]
    questions: PathBuf,
    /// Folder with a picture ID.png for each prompt.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "answers",
        requires = "vqa"
    )]
    images: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
    /// How to ask: with the choices, as TIFA's program asks BLIP-2; without them, likewise; or the bare question, as it asks all others.
    /// Default: choices with --vqa openai, else question.
    #[arg(long, value_name = "HOW", requires = "vqa")]
    prompt: Option<Prompt>,
    /// Score these answers, in the form of a result of TIFA's program, instead of asking.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["images", "vqa"])]
    answers: Option<PathBuf>,
    /// Take answers for choices by this model of sentences: a folder such as sentence-transformers/all-mpnet-base-v2, the one of TIFA's program, or
    /// all-MiniLM-L6-v2, in the layout of transformers.
    #[arg(long, value_name = "DIR", group = COMPUTING)]
    embedder: Option<PathBuf>,
    /// Also write the result, with every answer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Prompt {
    Choices,
    FreeForm,
    Question,
}

impl Tifa {
    pub fn run(self) -> anyhow::Result<()> {
        let inputs = std::iter::once(self.questions.as_path()).chain(self.answers.as_deref());
        let outputs = self.out.iter().chain(self.judge.cache());
        spare(inputs, outputs.map(PathBuf::as_path))?;
        let output = self.out.as_deref().map(Output::create).transpose()?;
        let set = TifaSet::read(&self.questions)?;
        let embedder = self.embedder()?;
        let embedder = embedder.as_ref();
        let result = match &self.answers {
            Some(path) => {
                let mut answers = TifaAnswers::read(path)?;
                if let Some(embedder) = embedder {
                    interrupt::install()?;
                    self.take(&mut answers, &set, embedder)?;
                }
                let judge = path.display().to_string();
                let bootstrap = Bootstrap::default();
                score("unknown", &judge, None, &set, &answers, &bootstrap)?
            }
            None => self.ask(&set, embedder)?,
        };
        if let (Some(output), Some(path)) = (output, &self.out) {
            output.finish_with(&to_json(path, &result)?)?;
        }
        print(text(&result))
    }

    /// The model of sentences, which fails before anybody is asked.
    fn embedder(&self) -> anyhow::Result<Option<NamedEmbedder>> {
        let Some(folder) = &self.embedder else {
            return Ok(None);
        };
        Ok(Some(NamedEmbedder {
            name: folder.display().to_string(),
            model: SentenceEncoder::load(folder, &self.judge.device()?)?,
        }))
    }

    fn ask(&self, set: &TifaSet, embedder: Option<&NamedEmbedder>) -> anyhow::Result<TifaResult> {
        let Some(images) = &self.images else {
            bail!("either --answers, or --images and --vqa, are needed");
        };
        let shared = embedder.is_some();
        self.judge.ask(images, ChatPrompt::Plain, shared, |judge| {
            self.judged(set, images, judge, embedder)
        })
    }

    fn judged(
        &self,
        set: &TifaSet,
        images: &Path,
        judge: &dyn Vqa,
        embedder: Option<&NamedEmbedder>,
    ) -> anyhow::Result<TifaResult> {
        let prompt = match (self.prompt, self.judge.vqa()) {
            (Some(Prompt::Choices), _) | (None, Some(Judge::OpenAi(_))) => TifaPrompt::Choices,
            (Some(Prompt::FreeForm), _) => TifaPrompt::FreeForm,
            (Some(Prompt::Question) | None, _) => TifaPrompt::Question,
        };
        let model = images.display().to_string();
        let source = ImageFolder::new(images);
        let bootstrap = Bootstrap::default();
        let mut progress = Progress::new("asking", set.items().len() as u64, "pictures");
        let asked = ask(set, &source, judge, prompt, |state| {
            progress.set(state.done as u64, unanswered(state.unanswered));
            interrupt::flow()
        });
        let mut answers = self.judge.finished(asked, progress)?;
        if let Some(embedder) = embedder {
            self.take(&mut answers, set, embedder)?;
        }
        let result = score(
            &model,
            judge.name(),
            Some(prompt),
            set,
            &answers,
            &bootstrap,
        )?;
        let mut asked = result.items.iter().flat_map(|item| &item.questions);
        let failure = asked.find_map(|question| question.failure.as_deref());
        some_answered(result.unanswered, result.questions, failure)?;
        Ok(result)
    }

    /// Takes answers for choices by a model of sentences.
    fn take(
        &self,
        answers: &mut TifaAnswers,
        set: &TifaSet,
        embedder: &NamedEmbedder,
    ) -> anyhow::Result<()> {
        let mut shown = None;
        let taken = answers.take_nearest(set, embedder, |done, total| {
            let progress =
                shown.get_or_insert_with(|| Progress::new("embedding", total as u64, "texts"));
            progress.set(done as u64, String::new());
            interrupt::flow()
        });
        match shown {
            Some(progress) => self.judge.finished(taken, progress),
            // There was nothing to embed.
            None => Ok(taken?),
        }
    }
}

fn text(result: &TifaResult) -> String {
    let types = result.by_type.iter();
    let types = types.map(|(name, estimate)| (format!("type: {name}"), estimate));
    let rows: Vec<[String; 4]> = std::iter::once(("all".to_owned(), &result.overall))
        .chain(types)
        .map(|(name, estimate)| estimate_row(name, estimate))
        .collect();
    let table = columns(["TIFA, percent", "score", "95% interval", "prompts"], &rows);
    let methods: Vec<String> = result
        .methods
        .iter()
        .map(|(method, count)| {
            let name = match method {
                ChoiceMethod::Given => "as given",
                ChoiceMethod::Exact => "exact",
                ChoiceMethod::Normalised => "but for case and punctuation",
                ChoiceMethod::Contained => "by their words",
                ChoiceMethod::EditDistance => "by edit distance",
                ChoiceMethod::Embedding => "by sentence embeddings",
            };
            format!("{count} {name}")
        })
        .collect();
    let mut text = format!(
        "{}, answered by {}: {} questions, {} unanswered; taken for choices: {}\n\n{table}",
        result.model,
        result.vqa,
        result.questions,
        result.unanswered,
        methods.join(", ")
    );
    if let Some(EmbedderId { name, sha256 }) = &result.embedder {
        text += &format!("\n\nsentence embeddings: {name}, weights of SHA-256 {sha256}");
    }
    if let Some(stdev) = result.stdev {
        text += &format!(
            "\n\nstandard deviation over prompts, percent: {:.2}",
            100.0 * stdev
        );
    }
    let mut questions = result.items.iter().flat_map(|item| &item.questions);
    if let Some(failure) = questions.find_map(|question| question.failure.as_ref()) {
        text += &format!("\n\nunanswered, for example: {failure}");
    }
    text
}
