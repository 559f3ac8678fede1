//! `selma report`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use selma::report::{Comparison, Evaluation, HumanRating};
use selma::{Recipe, Run, SelmaError, Stage, compare_seeds};

use super::events::Events;
use crate::terminal::{print, say};

/// Write the report of a run again and print its table, set runs of one recipe with different seeds side by side, or make a
/// report of evaluations that no run has made.
///
/// Results of other metrics become part of a run's report when they lie beside its own, as eval/MODEL/NAME.json or .jsonl.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Several runs give one table in Markdown: every model's difference to the base in each run, and over the prompts of all runs
together. Their recipes differ in nothing but name and seed.

Examples:
  selma report runs/mini
  selma report runs/mini-42 runs/mini-43 runs/mini-44
  selma report runs/mini --ratings rating.json
  selma report --eval sd14=dsg-a.json tuned=dsg-b.json sd14=hps-a.jsonl tuned=hps-b.jsonl --images sd14=a tuned=b --out report")]
pub struct Args {
    /// Folders of runs whose evaluation is finished.
    #[arg(value_name = "DIR", required_unless_present = "eval")]
    runs: Vec<PathBuf>,
    /// Files of selma eval dsg, tifa, vqascore and score, of any models and metrics. NAME is what the model is called; without
    /// it as the file says. The first model is the base.
    #[arg(long, value_name = "[NAME=]FILE", num_args = 1.., conflicts_with = "runs", requires = "out")]
    eval: Vec<String>,
    /// What people said, as `selma rate import --format json` prints it: a section of the page for each file. Those in the folder ratings of a run are always
    /// shown.
    #[arg(long, value_name = "FILE.json")]
    ratings: Vec<PathBuf>,
    /// Folders with a picture ID.png for each prompt of --eval, for the page.
    #[arg(long, value_name = "NAME=DIR", num_args = 1.., requires = "eval")]
    images: Vec<String>,
    /// The model that the others are compared with.
    #[arg(long, value_name = "NAME", requires = "eval")]
    base: Option<String>,
    /// Heading of the page of --eval.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "eval",
        default_value = "Evaluation"
    )]
    title: String,
    /// Folder for the report of --eval.
    #[arg(long, value_name = "DIR", requires = "eval")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if !args.eval.is_empty() {
        return compare(args);
    }
    let ratings = read(&args.ratings)?;
    let runs = args.runs.iter().map(|folder| open(folder));
    let runs = runs.collect::<Result<Vec<Run>, SelmaError>>()?;
    match runs.as_slice() {
        [run] => report(run, ratings),
        _ if !ratings.is_empty() => bail!("--ratings is for the report of one run, or for --eval"),
        runs => print(compare_seeds(runs)?.markdown()),
    }
}

fn open(folder: &Path) -> Result<Run, SelmaError> {
    // A report runs no network, so any device of this build will do.
    Run::open(Recipe::of_run(folder)?, folder, &Device::default())
}

fn read(ratings: &[PathBuf]) -> Result<Vec<HumanRating>, SelmaError> {
    ratings.iter().map(|path| HumanRating::read(path)).collect()
}

fn report(run: &Run, ratings: Vec<HumanRating>) -> anyhow::Result<()> {
    let mut events = Events::default();
    run.stage(Stage::Report, &mut |event| events.receive(event))?;
    let mut report = run.report()?;
    if !ratings.is_empty() {
        report.ratings.extend(ratings);
        report.write(&run.layout.report())?;
    }
    print(report.table())?;
    let page = run.layout.report().join("index.html");
    say(format_args!("report: {}", page.display()));
    Ok(())
}

fn compare(args: Args) -> anyhow::Result<()> {
    let out = args.out.context("--eval needs --out")?;
    let mut evaluations = Vec::new();
    for file in &args.eval {
        let (name, path) = match file.split_once('=') {
            Some((name, path)) if !Path::new(file).is_file() => (Some(name), path),
            _ => (None, file.as_str()),
        };
        evaluations.extend(Evaluation::read(Path::new(path), name)?);
    }
    let images = args.images.iter().map(|folder| {
        let named = folder.split_once('=');
        let (name, folder) =
            named.with_context(|| format!("--images: expected NAME=DIR, found {folder}"))?;
        Ok((name.to_owned(), PathBuf::from(folder)))
    });
    let comparison = Comparison {
        title: args.title,
        evaluations,
        ratings: read(&args.ratings)?,
        base: args.base,
        images: images.collect::<anyhow::Result<_>>()?,
    };
    let report = comparison.report()?;
    report.write(&out)?;
    print(report.table())?;
    say(format_args!("report: {}", out.join("index.html").display()));
    Ok(())
}
