//! `selma report`.

use std::path::PathBuf;

use burn::tensor::Device;
use selma::{Recipe, Run, Stage};

use super::events::Events;
use crate::terminal::{print, say};

/// Write the report of a run again, and print its table.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma report runs/mini")]
pub struct Args {
    /// Folder of a run whose evaluation is finished.
    #[arg(value_name = "DIR")]
    run: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = Recipe::of_run(&args.run)?;
    // A report runs no network, so any device of this build will do.
    let run = Run::open(recipe, &args.run, &Device::default())?;
    let mut events = Events::default();
    run.stage(Stage::Report, &mut |event| events.receive(event))?;
    print(run.report()?.table())?;
    let page = run.layout.report().join("index.html");
    say(format_args!("report: {}", page.display()));
    Ok(())
}
