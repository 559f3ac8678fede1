//! `selma eval vqascore`.

use std::path::{Path, PathBuf};

use selma_durable::to_json;
use selma_eval::rating::StudyPrompt;
use selma_eval::{Bootstrap, ChatPrompt, ImageFolder, Vqa, VqaScoreResult, vqa_score};

use super::estimate_row;
use super::judge::JudgeArgs;
use crate::commands::rate::read_prompts;
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;
use crate::table::columns;
use crate::terminal::print;

/// Measure how likely a vision model is to say that each picture shows its prompt (VQAScore, arXiv 2404.01291).
///
/// The model is asked: Does this figure show "PROMPT"? Please answer Yes or No. The score is P(yes) / (P(yes) + P(no)), so the
/// server must give log probabilities. Intervals are 95%.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  selma eval vqascore --images drawn --prompts prompts/coco.jsonl --vqa openai:http://localhost:8000/v1#qwen2.5-vl --cache answers.jsonl"
)]
pub struct VqaScore {
    /// Prompts: JSONL with "id", "text" and, if there are any, "category" or "skill", or DSG's annotations as CSV.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Folder with a picture ID.png for each prompt.
    #[arg(long, value_name = "DIR", requires = "vqa")]
    images: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Also write the result, with every score, as JSON.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

impl VqaScore {
    pub fn run(self) -> anyhow::Result<()> {
        let outputs = self.out.iter().chain(self.judge.cache());
        spare([self.prompts.as_path()], outputs.map(PathBuf::as_path))?;
        let output = self.out.as_deref().map(Output::create).transpose()?;
        let prompts = read_prompts(&self.prompts)?;
        let result = self
            .judge
            .ask(&self.images, ChatPrompt::Figure, false, |judge| {
                self.judged(&prompts, &self.images, judge)
            })?;
        if let (Some(output), Some(path)) = (output, &self.out) {
            output.finish_with(&to_json(path, &result)?)?;
        }
        print(text(&result))
    }

    fn judged(
        &self,
        prompts: &[StudyPrompt],
        images: &Path,
        judge: &dyn Vqa,
    ) -> anyhow::Result<VqaScoreResult> {
        let model = images.display().to_string();
        let source = ImageFolder::new(images);
        let bootstrap = Bootstrap::default();
        let mut progress = Progress::new("asking", prompts.len() as u64, "pictures");
        let asked = vqa_score(&model, prompts, &source, judge, &bootstrap, |state| {
            let note = match state.unscored {
                0 => String::new(),
                count => format!("{count} without a score"),
            };
            progress.set(state.done as u64, note);
            interrupt::flow()
        });
        self.judge.finished(asked, progress)
    }
}

fn text(result: &VqaScoreResult) -> String {
    let categories = result.by_category.iter();
    let categories = categories.map(|(name, estimate)| (format!("category: {name}"), estimate));
    let rows: Vec<[String; 4]> = std::iter::once(("all".to_owned(), &result.overall))
        .chain(categories)
        .map(|(name, estimate)| estimate_row(name, estimate))
        .collect();
    let heading = ["VQAScore, percent", "score", "95% interval", "prompts"];
    let mut text = format!(
        "{}, answered by {}: {} prompts, {} without a score; \"yes\" and \"no\" have {:.1}% of all probability\n\n{}",
        result.model,
        result.vqa,
        result.prompts,
        result.unscored,
        100.0 * result.coverage,
        columns(heading, &rows)
    );
    if let Some(failure) = result.items.iter().find_map(|item| item.failure.as_ref()) {
        text += &format!("\n\nunanswered, for example: {failure}");
    }
    text
}
