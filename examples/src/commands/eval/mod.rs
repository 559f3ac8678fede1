//! `selma eval`.

mod dsg;
mod judge;
mod questions;
mod score;
mod tifa;
mod vqascore;

use anyhow::ensure;
use clap::Subcommand;
use selma_eval::Estimate;

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
    Dsg(dsg::Dsg),
    Tifa(tifa::Tifa),
    #[command(name = "vqascore")]
    VqaScore(vqascore::VqaScore),
    Questions(questions::Questions),
    Score(score::Args),
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.metric {
        Metric::Dsg(args) => args.run(),
        Metric::Tifa(args) => args.run(),
        Metric::VqaScore(args) => args.run(),
        Metric::Questions(args) => args.run(),
        Metric::Score(args) => score::run(&args),
    }
}

/// A row of a table: name, percent, interval and number of prompts.
fn estimate_row(name: String, estimate: &Estimate) -> [String; 4] {
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let (low, high) = (percent(estimate.low), percent(estimate.high));
    [
        name,
        percent(estimate.mean),
        format!("[{low}, {high}]"),
        estimate.clusters.to_string(),
    ]
}

/// How many questions have no answer so far, for people who wait.
fn unanswered(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!("{count} unanswered"),
    }
}

/// A score of nothing but missing answers would only look like one.
fn some_answered(unanswered: usize, questions: usize, failure: Option<&str>) -> anyhow::Result<()> {
    let reason = failure.map_or_else(String::new, |failure| format!(", for example: {failure}"));
    ensure!(
        unanswered < questions,
        "not one of {questions} questions was answered{reason}"
    );
    Ok(())
}
