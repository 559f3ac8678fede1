//! `selma eval dsg`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::ValueEnum;
use selma_durable::to_json;
use selma_eval::dsg::{Aggregation, AnswerMatch, MissingItems, Quirks};
use selma_eval::{
    Answers, ChatPrompt, EvalOptions, EvalResult, ImageFolder, QuestionSet, Vqa, evaluate, score,
};

use super::judge::{Judge, JudgeArgs};
use super::{estimate_row, some_answered, unanswered};
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;
use crate::table::columns;
use crate::terminal::{print, say};

/// Measure faithfulness by yes/no questions about each prompt (Davidsonian Scene Graphs, arXiv 2310.18235).
///
/// The score is the share of questions that are answered "yes" from the picture.
/// The questions come from a CSV file in the form of DSG-1k, the pictures from a folder with ITEM_ID.png for each item.
/// Answers that are there already, such as those of DSG's release, are scored with --answers instead of --images.
/// Intervals are 95% and take the prompts, not the questions, as independent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma eval dsg --images drawn --annotations questions.csv --vqa oracle --out result.json
  selma eval dsg --images drawn --annotations questions.csv --vqa openai:http://localhost:8000/v1#qwen2.5-vl --cache answers.jsonl
  selma eval dsg --answers mplug_dsg.csv --t2i-model sd2dot1 --annotations dsg-1k-anns.csv --quirks official")]
pub struct Dsg {
    /// Questions, in the form of DSG's annotations.
    #[arg(long, value_name = "CSV")]
    annotations: PathBuf,
    /// Folder with a picture ITEM_ID.png for each item.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "answers",
        requires = "vqa"
    )]
    images: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Score these answers, in the form of DSG's release, instead of asking.
    #[arg(long, value_name = "CSV", conflicts_with_all = ["images", "vqa"])]
    answers: Option<PathBuf>,
    /// Image model whose rows are taken from the answers.
    #[arg(long, value_name = "NAME", requires = "answers")]
    t2i_model: Option<String>,
    /// What a "no" invalidates, and what is averaged: as DSG's program or as SELMA's.
    #[arg(long, value_name = "RULE", default_value = "official")]
    aggregation: Rule,
    /// How malformed dependencies, which DSG-1k has, are read: refused, as DSG's program, or as SELMA's.
    #[arg(long, value_name = "HOW", default_value = "strict")]
    quirks: Reading,
    /// Which answers mean "yes": exactly that, or also "Yes." as chat models say it. Default: chat with --vqa openai, else exact.
    #[arg(long, value_name = "HOW")]
    answer_match: Option<Match>,
    /// What an item without a single answer counts: zero, or nothing.
    #[arg(long, value_name = "HOW", default_value = "zero")]
    missing: Missing,
    /// Also write the result, with every answer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rule {
    Official,
    Selma,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reading {
    Strict,
    Official,
    Selma,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Match {
    Exact,
    Chat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Missing {
    Zero,
    Skip,
}

impl Dsg {
    pub fn run(self) -> anyhow::Result<()> {
        let inputs = std::iter::once(self.annotations.as_path()).chain(self.answers.as_deref());
        let outputs = self.out.iter().chain(self.judge.cache());
        spare(inputs, outputs.map(PathBuf::as_path))?;
        let output = self.out.as_deref().map(Output::create).transpose()?;
        let quirks = match self.quirks {
            Reading::Strict => Quirks::Strict,
            Reading::Official => Quirks::Official,
            Reading::Selma => Quirks::Selma,
        };
        let questions = QuestionSet::read(&self.annotations, quirks)?;
        if !questions.quirks().is_empty() {
            say(format_args!(
                "{} malformed dependencies were passed over",
                questions.quirks().len()
            ));
        }
        let result = match &self.answers {
            Some(path) => {
                let answers = Answers::read(path, self.t2i_model.as_deref())?;
                let model = self.t2i_model.as_deref().unwrap_or("unknown");
                score(
                    model,
                    &path.display().to_string(),
                    &questions,
                    &answers,
                    &self.options(),
                )?
            }
            None => self.ask(&questions)?,
        };
        if let (Some(output), Some(path)) = (output, &self.out) {
            output.finish_with(&to_json(path, &result)?)?;
        }
        print(text(&result))
    }

    fn ask(&self, questions: &QuestionSet) -> anyhow::Result<EvalResult> {
        let Some(images) = &self.images else {
            bail!("either --answers, or --images and --vqa, are needed");
        };
        self.judge.ask(images, ChatPrompt::YesNo, false, |judge| {
            self.judged(questions, images, judge)
        })
    }

    fn judged(
        &self,
        questions: &QuestionSet,
        images: &Path,
        judge: &dyn Vqa,
    ) -> anyhow::Result<EvalResult> {
        let model = images.display().to_string();
        let source = ImageFolder::new(images);
        let mut progress = Progress::new("asking", questions.items().len() as u64, "pictures");
        let mut open = 0;
        let asked = evaluate(
            &model,
            questions,
            &source,
            judge,
            &self.options(),
            |state| {
                let answers = state.answers.iter();
                open += answers.filter(|(_, reply)| !reply.is_answered()).count();
                progress.set(state.done as u64, unanswered(open));
                interrupt::flow()
            },
        );
        let result = self.judge.finished(asked, progress)?;
        let mut asked = result.items.iter().flat_map(|item| &item.questions);
        let failure = asked.find_map(|question| question.failure.as_deref());
        some_answered(result.unanswered, result.questions, failure)?;
        Ok(result)
    }

    fn options(&self) -> EvalOptions {
        EvalOptions {
            aggregation: match self.aggregation {
                Rule::Official => Aggregation::Official,
                Rule::Selma => Aggregation::Selma,
            },
            answer_match: match (self.answer_match, self.judge.vqa()) {
                (Some(Match::Chat), _) | (None, Some(Judge::OpenAi(_))) => AnswerMatch::Chat,
                (Some(Match::Exact) | None, _) => AnswerMatch::Exact,
            },
            missing_items: match self.missing {
                Missing::Zero => MissingItems::Zero,
                Missing::Skip => MissingItems::Skip,
            },
            ..EvalOptions::default()
        }
    }
}

fn text(result: &EvalResult) -> String {
    let overall = [("all".to_owned(), result.overall)];
    let part = |name: &str, parts: &std::collections::BTreeMap<String, _>| {
        let named = parts
            .iter()
            .map(|(key, value)| (format!("{name}: {key}"), *value));
        named.collect::<Vec<(String, selma_eval::Estimate)>>()
    };
    let rows: Vec<[String; 4]> = overall
        .into_iter()
        .chain(part("source", &result.by_group))
        .chain(part("category", &result.by_broad))
        .chain(part("detail", &result.by_detailed))
        .map(|(name, estimate)| estimate_row(name, &estimate))
        .collect();
    let table = columns(["DSG, percent", "score", "95% interval", "prompts"], &rows);
    let rule = match result.aggregation {
        Aggregation::Official => "mean over prompts (official)",
        Aggregation::Selma => "mean over questions (SELMA)",
    };
    let mut text = format!(
        "{}, answered by {}: {} questions, {} unanswered, {rule}\n\n{table}",
        result.model, result.vqa, result.questions, result.unanswered
    );
    if let Some(soft) = &result.soft {
        let [_, mean, interval, prompts] = estimate_row(String::new(), &soft.estimate);
        text += &format!(
            "\n\nmean probability of \"yes\", percent: {mean} {interval}, {} questions of {prompts} prompts; \
             \"yes\" and \"no\" have {:.1}% of all probability",
            soft.questions,
            100.0 * soft.coverage
        );
    }
    if result.unclear > 0 {
        text += &format!(
            "\n\nneither \"yes\" nor \"no\": {} answers, which count as \"no\" (see --answer-match)",
            result.unclear
        );
    }
    let mut failures = result.items.iter().flat_map(|item| &item.questions);
    if let Some(failure) = failures.find_map(|question| question.failure.as_ref()) {
        text += &format!("\n\nunanswered, for example: {failure}");
    }
    if !result.skipped.is_empty() {
        text += &format!(
            "\n\nleft out, without any answer: {}",
            result.skipped.join(", ")
        );
    }
    text
}
