//! All of SELMA inside another program: runs a recipe and reads the scores from the report.
//!
//!     cargo run --release --bin run_recipe -- recipes/mini.toml runs/mine

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use selma::{Recipe, Run, RunEvent};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, folder] = args.as_slice() else {
        bail!("usage: run_recipe RECIPE.toml FOLDER");
    };
    let device = selma::diffusion::device("flex")?;
    // A folder in which the same recipe was interrupted is continued.
    let run = Run::open(Recipe::load(Path::new(recipe))?, Path::new(folder), &device)?;
    run.run(&mut |event| {
        if let RunEvent::Stage(stage) = event {
            println!("{stage}");
        }
        // `Break` stops the run, to be continued later.
        ControlFlow::Continue(())
    })?;
    for model in run.report()?.models {
        println!("{:>6.1}%  {}", 100.0 * model.overall.mean, model.name);
    }
    Ok(())
}
