//! `selma run`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use selma::{Job, Layout, Recipe, Round, Run, Stage, compare_rounds, jobs};
use selma_diffusion::device;
use serde::Serialize;

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
  selma run recipes/mini.toml --out /data/mini --stage report
  selma run recipes/mini.toml --plan
  selma run recipes/mini.toml --job train/coco")]
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
    /// Do this part only, such as train/coco; other processes may do others in the same folder at the same time.
    #[arg(long, value_name = "ID", conflicts_with_all = ["stage", "plan"])]
    job: Option<String>,
    /// Print all parts with their commands and what each needs, as JSON, and do nothing.
    #[arg(long, conflicts_with = "stage")]
    plan: bool,
    /// Of a recipe with [rounds] do this round alone; the one before has to be finished. Without this flag all rounds are done.
    #[arg(long, value_name = "N")]
    round: Option<usize>,
}

/// A part of the run and how it is done.
#[derive(Debug, Serialize)]
struct Planned {
    #[serde(flatten)]
    job: Job,
    command: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let recipe = Recipe::load(&args.recipe)?;
    let device = device(&args.device)?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => PathBuf::from("runs").join(&recipe.name),
    };
    let rounds = recipe.rounds(&folder);
    let Some(number) = args.round else {
        if rounds.is_empty() {
            return one(&args, recipe, &folder, &device, None).map(drop);
        }
        ensure!(
            args.stage.is_none() && args.job.is_none() && !args.plan,
            "{} has rounds: --stage, --job and --plan are for one of them, which --round says",
            args.recipe.display()
        );
        return all(&args, &rounds, &device);
    };
    let count = rounds.len();
    let round = number.checked_sub(1).and_then(|index| rounds.get(index));
    let round = round.with_context(|| {
        let recipe = args.recipe.display();
        format!("{recipe} has {count} rounds; there is no round {number}")
    })?;
    let recipe = round.recipe.clone();
    one(&args, recipe, &round.folder, &device, Some(round)).map(drop)
}

/// Runs all rounds.
fn all(args: &Args, rounds: &[Round], device: &Device) -> anyhow::Result<()> {
    let mut runs = Vec::with_capacity(rounds.len());
    for round in rounds {
        say(format_args!("round {} of {}", round.number, rounds.len()));
        let recipe = round.recipe.clone();
        runs.extend(one(args, recipe, &round.folder, device, Some(round))?);
    }
    print(compare_rounds(rounds, &runs)?.markdown())
}

/// Does a run that is no round, or one round, or what of it the flags ask for. Nothing is left open where others may work in the folder.
fn one(
    args: &Args,
    recipe: Recipe,
    folder: &Path,
    device: &Device,
    round: Option<&Round>,
) -> anyhow::Result<Option<Run>> {
    ensure!(
        !args.resume || Layout::new(folder).recipe().is_file(),
        "{} holds no run to resume",
        folder.display()
    );
    if args.plan {
        return plan(args, recipe, folder, device).map(|()| None);
    }
    let job_needs_model = |job: &String| {
        !["prompts/", "merge/"]
            .iter()
            .any(|stage| job.starts_with(stage))
    };
    let needs_model = !matches!(args.stage, Some(Stage::Prompts | Stage::Merge))
        && args.job.as_ref().is_none_or(job_needs_model);
    let mut run = match &args.job {
        Some(job) => Run::open_for_job(recipe, folder, device, job)?,
        None => Run::open(recipe, folder, device)?,
    };
    if let Some(round) = round {
        round.begin(&run)?;
    }
    if needs_model {
        let variant = run.recipe.model_options.variant.as_deref();
        run.model_folder = models::locate(&run.recipe.model, variant)?;
        let teacher = run.recipe.images.model.as_deref();
        run.teacher_folder = teacher
            .map(|model| models::locate(model, None))
            .transpose()?;
        let vae = run.recipe.model_options.vae.as_deref();
        run.model_options.vae = vae.map(locate_vae).transpose()?;
        tell_family(&run.checkpoint()?, "[model_options] config")?;
    }
    let mut events = Events::default();
    match (&args.job, args.stage) {
        (Some(job), _) => run.job(job, &mut |event| events.receive(event))?,
        (None, Some(stage)) => run.stage(stage, &mut |event| events.receive(event))?,
        (None, None) => run.run(&mut |event| events.receive(event))?,
    }
    events.finish();
    if args.job.is_some() {
        return Ok(None);
    }
    if args.stage.is_none_or(|stage| stage == Stage::Report) {
        print(run.report()?.table())?;
        let page = run.layout.report().join("index.html");
        say(format_args!("report: {}", page.display()));
        if let Some(round) = round {
            round.carry(&run)?;
        }
    }
    Ok(Some(run))
}

/// Prints the parts of a run.
fn plan(args: &Args, recipe: Recipe, folder: &Path, device: &Device) -> anyhow::Result<()> {
    let command = |job: &Job| {
        let words = ["selma", "run"].map(str::to_owned);
        let mut command = words.to_vec();
        command.push(args.recipe.display().to_string());
        let out = args.round.map_or(Some(folder), |_| folder.parent());
        let named = [
            ("--out", out.map(|out| out.display().to_string())),
            ("--round", args.round.map(|number| number.to_string())),
            ("--device", Some(args.device.clone())),
            ("--job", Some(job.id.clone())),
        ];
        for (flag, value) in named {
            command.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        command
    };
    let jobs = jobs(recipe, folder, device)?.into_iter();
    let planned: Vec<Planned> = jobs
        .map(|job| Planned {
            command: command(&job),
            job,
        })
        .collect();
    print(serde_json::to_string_pretty(&planned)?)
}
