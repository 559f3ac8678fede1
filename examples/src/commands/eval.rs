//! `selma eval`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use selma_durable::to_json;
use selma_eval::dsg::{Aggregation, AnswerMatch, MissingItems, Quirks};
use selma_eval::{
    Answers, EvalError, EvalOptions, EvalResult, ImageFolder, QuestionSet, Vqa, evaluate, score,
};
use selma_mini::OracleVqa;

use super::eval_score;
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;
use crate::table::columns;
use crate::terminal::{print, say};

/// Measure how faithful pictures are to their prompts, and how well people would like them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  selma eval dsg --images drawn --annotations questions.csv --vqa oracle\n  selma eval score --scorer pickscore --weights PickScore_v1 --images drawn"
)]
pub struct Args {
    #[command(subcommand)]
    metric: Metric,
}

#[derive(Debug, Subcommand)]
enum Metric {
    Dsg(Dsg),
    Score(eval_score::Args),
}

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
  selma eval dsg --answers mplug_dsg.csv --t2i-model sd2dot1 --annotations dsg-1k-anns.csv --quirks official")]
struct Dsg {
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
    /// Who answers the questions: "oracle" sees the shapes of the miniature world (64x64 pixels), and nothing else.
    #[arg(long, value_name = "NAME")]
    vqa: Option<Judge>,
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
    /// Which answers mean "yes": exactly that, or also "Yes." as chat models say it.
    #[arg(long, value_name = "HOW", default_value = "exact")]
    answer_match: Match,
    /// What an item without a single answer counts: zero, or nothing.
    #[arg(long, value_name = "HOW", default_value = "zero")]
    missing: Missing,
    /// Also write the result, with every answer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Judge {
    Oracle,
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

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.metric {
        Metric::Dsg(args) => args.run(),
        Metric::Score(args) => eval_score::run(&args),
    }
}

impl Dsg {
    fn run(self) -> anyhow::Result<()> {
        let inputs = std::iter::once(self.annotations.as_path()).chain(self.answers.as_deref());
        spare(inputs, self.out.as_deref())?;
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
        let (Some(images), Some(judge)) = (&self.images, self.vqa) else {
            bail!("either --answers, or --images and --vqa, are needed");
        };
        if !images.is_dir() {
            bail!("{} is not a folder", images.display());
        }
        interrupt::install()?;
        let judge: &dyn Vqa = match judge {
            Judge::Oracle => &OracleVqa,
        };
        let model = images.display().to_string();
        let source = ImageFolder::new(images);
        let mut progress = Progress::new("asking", questions.items().len() as u64, "pictures");
        let asked = evaluate(
            &model,
            questions,
            &source,
            judge,
            &self.options(),
            |state| {
                progress.set(state.done as u64, "");
                interrupt::flow()
            },
        );
        match asked {
            Err(EvalError::Cancelled { .. }) => bail!("interrupted; nothing was written"),
            other => {
                let result = other?;
                progress.finish();
                Ok(result)
            }
        }
    }

    fn options(&self) -> EvalOptions {
        EvalOptions {
            aggregation: match self.aggregation {
                Rule::Official => Aggregation::Official,
                Rule::Selma => Aggregation::Selma,
            },
            answer_match: match self.answer_match {
                Match::Exact => AnswerMatch::Exact,
                Match::Chat => AnswerMatch::Chat,
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
        .map(|(name, estimate)| {
            [
                name,
                format!("{:.2}", 100.0 * estimate.mean),
                format!(
                    "[{:.2}, {:.2}]",
                    100.0 * estimate.low,
                    100.0 * estimate.high
                ),
                estimate.clusters.to_string(),
            ]
        })
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
    if !result.skipped.is_empty() {
        text += &format!(
            "\n\nleft out, without any answer: {}",
            result.skipped.join(", ")
        );
    }
    text
}
