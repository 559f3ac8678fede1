//! `selma train calibrate`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::FloatDType;
use selma::calibrate::{CalibrationStyle, CalibrationTask, calibrate};
use selma::{RunEvent, SelmaError};
use selma_diffusion::{StableDiffusion, device};
use selma_llm::read_prompts;

use crate::commands::events::Events;
use crate::commands::model::{ModelOptions, tell_family};
use crate::commands::values::{finite, load_lora};
use crate::terminal::say;

/// Collect the statistics with which `selma merge --method ssr` merges experts.
///
/// For each expert, the model draws the beginning of pictures of the expert's own task with it, and what reaches the ranks of all experts is summed up. The experts are
/// those of the merge, in its order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma train calibrate --model models/mini --task coco.safetensors=prompts/coco.jsonl --task whoops.safetensors=prompts/whoops.jsonl --out calibration.safetensors
  selma merge --method ssr --calibration calibration.safetensors --out merged.safetensors coco.safetensors whoops.safetensors")]
pub struct Args {
    /// The model: a folder, a file, or an id on the Hub.
    #[arg(long, value_name = "DIR|FILE|ID")]
    model: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// An expert and a file with prompts of its task, as `selma prompts` writes it. Repeat it for each expert of the merge, in its order.
    #[arg(long = "task", value_name = "ADAPTER=PROMPTS.jsonl", required = true)]
    tasks: Vec<String>,
    /// The file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Prompts of each task that are drawn, the first.
    #[arg(long, value_name = "N", default_value = "1")]
    prompts: std::num::NonZeroUsize,
    /// Steps of each drawing that are looked at, the first.
    #[arg(long, value_name = "N", default_value = "1")]
    seen_steps: std::num::NonZeroUsize,
    /// Steps of each drawing.
    #[arg(long, value_name = "N", default_value = "50")]
    steps: std::num::NonZeroUsize,
    /// Scale of guidance; above 1, what the model sees without the prompt counts as well. Default: the model's.
    #[arg(long, value_name = "G", value_parser = finite)]
    guidance: Option<f64>,
    /// Seed of the noise of the first prompt of each task.
    #[arg(long, value_name = "S", default_value = "42")]
    seed: u64,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "D", default_value = "flex")]
    device: String,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let count = args.prompts.get();
    let mut loaded = Vec::with_capacity(args.tasks.len());
    for task in &args.tasks {
        let Some((adapter, prompts)) = task.split_once('=') else {
            bail!("task {task:?}: expected ADAPTER=PROMPTS.jsonl");
        };
        let found = read_prompts(Path::new(prompts))?;
        if found.is_empty() {
            bail!("{prompts} has no prompts");
        }
        let texts: Vec<String> = found
            .into_iter()
            .take(count)
            .map(|prompt| prompt.text)
            .collect();
        loaded.push((load_lora(Path::new(adapter))?, texts));
    }
    let device = device(&args.device)?;
    let checkpoint = args.options.open(&args.model, FloatDType::F32)?;
    tell_family(&checkpoint, "--config")?;
    let pipeline = StableDiffusion::from_checkpoint(&checkpoint, &device)?;
    let tasks: Vec<CalibrationTask<'_>> = loaded
        .iter()
        .map(|(adapter, prompts)| CalibrationTask { adapter, prompts })
        .collect();
    let style = CalibrationStyle {
        steps: args.steps.get(),
        seen_steps: args.seen_steps.get(),
        guidance: args.guidance,
        seed: args.seed,
    };
    let total = loaded.iter().map(|(_, prompts)| prompts.len()).sum();
    let mut events = Events::default();
    let mut done = 0;
    let calibration = calibrate(&pipeline, &tasks, &style, &mut |_, _| {
        done += 1;
        events.receive(RunEvent::Progress {
            task: "calibration",
            done,
            total,
            unit: "prompts",
            note: None,
        })
    });
    events.finish();
    let calibration = match calibration {
        Err(SelmaError::Lora(error)) => return Err(crate::commands::values::advise(error)),
        other => other?,
    };
    calibration
        .save(&args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    say(format_args!("{}", args.out.display()));
    Ok(())
}
