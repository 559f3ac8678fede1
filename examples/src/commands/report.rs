//! `selma report`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use selma::{Recipe, Run, SelmaError, Stage, compare_seeds};

use super::events::Events;
use crate::terminal::{print, say};

/// Write the report of a run again and print its table, or set runs of one recipe with different seeds side by side.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Several runs give one table in Markdown: every model's difference to the base in each run, and over the prompts of all runs
together. Their recipes differ in nothing but name and seed.

Examples:
  selma report runs/mini
  selma report runs/mini-42 runs/mini-43 runs/mini-44")]
pub struct Args {
    /// Folders of runs whose evaluation is finished.
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let runs = args.runs.iter().map(|folder| open(folder));
    let runs = runs.collect::<Result<Vec<Run>, SelmaError>>()?;
    match runs.as_slice() {
        [run] => report(run),
        runs => print(compare_seeds(runs)?.markdown()),
    }
}

fn open(folder: &Path) -> Result<Run, SelmaError> {
    // A report runs no network, so any device of this build will do.
    Run::open(Recipe::of_run(folder)?, folder, &Device::default())
}

fn report(run: &Run) -> anyhow::Result<()> {
    let mut events = Events::default();
    run.stage(Stage::Report, &mut |event| events.receive(event))?;
    print(run.report()?.table())?;
    let page = run.layout.report().join("index.html");
    say(format_args!("report: {}", page.display()));
    Ok(())
}
