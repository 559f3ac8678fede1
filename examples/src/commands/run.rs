//! `selma run`.

use std::path::PathBuf;

use anyhow::ensure;
use selma::{Layout, Recipe, Run, Stage};
use selma_diffusion::device;

use super::model::{locate_vae, tell_family};
use super::{events::Events, values};
use crate::interrupt;
use crate::models;
use crate::terminal::{print, say};

/// Run all of SELMA from a recipe: prompts, pictures, experts, merging, evaluation, report.
///
/// Everything goes to one folder. What is finished there is not done again: after Ctrl-C, a crash or a power cut the same
/// command continues, and makes the same files as if nothing had happened.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma run recipes/mini.toml
  selma run recipes/mini.toml --out /data/mini --stage report")]
pub struct Args {
    /// What to do, as a TOML file.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Folder of the run; made if need be. Default: runs/NAME with the recipe's name.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "D", default_value = "flex")]
    device: String,
    /// Only continue a run that was begun before; an empty folder is an error then. Without this flag a run is begun or
    /// continued, whichever the folder asks for.
    #[arg(long)]
    resume: bool,
    /// Run this stage only, on what the stages before it have left.
    #[arg(long, value_name = "NAME", value_parser = values::named::<Stage>(Stage::ALL.map(Stage::name)))]
    stage: Option<Stage>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let recipe = Recipe::load(&args.recipe)?;
    let device = device(&args.device)?;
    let folder = match args.out {
        Some(folder) => folder,
        None => PathBuf::from("runs").join(&recipe.name),
    };
    ensure!(
        !args.resume || Layout::new(&folder).recipe().is_file(),
        "{} holds no run to resume",
        folder.display()
    );
    let needs_model = !matches!(args.stage, Some(Stage::Prompts | Stage::Merge));
    let mut run = Run::open(recipe, &folder, &device)?;
    if needs_model {
        let variant = run.recipe.model_options.variant.as_deref();
        run.model_folder = models::locate(&run.recipe.model, variant)?;
        let vae = run.recipe.model_options.vae.as_deref();
        run.model_options.vae = vae.map(locate_vae).transpose()?;
        tell_family(&run.checkpoint()?, "[model_options] config")?;
    }
    let mut events = Events::default();
    match args.stage {
        Some(stage) => run.stage(stage, &mut |event| events.receive(event))?,
        None => run.run(&mut |event| events.receive(event))?,
    }
    events.finish();
    if args.stage.is_none_or(|stage| stage == Stage::Report) {
        print(run.report()?.table())?;
        let page = run.layout.report().join("index.html");
        say(format_args!("report: {}", page.display()));
    }
    Ok(())
}
