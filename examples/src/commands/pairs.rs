//! `selma pairs`.

use std::path::PathBuf;

use anyhow::bail;
use selma_dataset::{PairRule, Scores, make_pairs, write_pairs};

use super::data::DataOptions;
use crate::terminal::say;

/// Make pairs of a better and a worse picture of each prompt, for a training by preference.
///
/// Of the pictures of a prompt, the one with the highest and the one with the lowest score make a pair. Prompts whose pictures score the same give none.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma images --model models/mini --prompts prompts/coco.jsonl --per-prompt 2 --out images/coco
  selma pairs --data images/coco --scores scores.jsonl --scorer dsg --out pairs.jsonl
  selma train --model models/mini --data images/coco --pairs pairs.jsonl --out experts/coco-dpo")]
pub struct Args {
    /// The dataset, in any layout that `selma train` reads.
    #[arg(long, value_name = "DIR|FILE.tar")]
    data: PathBuf,
    #[command(flatten)]
    reading: DataOptions,
    /// Scores of its pictures, one JSON object a line: {"file_name", "scorer", "score"}.
    #[arg(long, value_name = "FILE.jsonl")]
    scores: PathBuf,
    /// The scorer that decides.
    #[arg(long, value_name = "NAME")]
    scorer: String,
    /// Take the first two pictures of each prompt, not the best and the worst.
    #[arg(long)]
    first_two: bool,
    /// The file to write.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let pictures = args.reading.open(&args.data)?;
    let scores = Scores::read(&args.scores, &*pictures)?;
    let rule = match args.first_two {
        true => PairRule::FirstTwo,
        false => PairRule::BestWorst,
    };
    let (pairs, report) = make_pairs(&*pictures, &scores, &args.scorer, rule)?;
    let told = format!(
        "{} pairs of {} prompts; {} have equal scores, {} a single picture",
        report.pairs, report.prompts, report.ties, report.single
    );
    if pairs.is_empty() {
        bail!("{}: {told}", args.data.display());
    }
    write_pairs(&args.out, &*pictures, &pairs)?;
    say(format_args!("{}: {told}", args.out.display()));
    Ok(())
}
