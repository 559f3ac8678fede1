//! `selma images`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use burn::tensor::FloatDType;
use selma::draw::{Drawing, DrawingStyle, draw};
use selma_diffusion::noise::derive_seed;
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::{StableDiffusion, device};
use selma_llm::read_prompts;

use super::adapters;
use super::model::{ModelOptions, dtype, tell_family};
use super::scheduler::{self, Override, override_of};
use super::values::{WeightedFile, weighted_file};
use super::{events::Events, values};
use crate::interrupt;

/// Draw the prompts of a file into a dataset.
///
/// The dataset is a folder of PNG files with metadata.jsonl, which `datasets.load_dataset("imagefolder")` opens, and a text
/// file beside each picture. Stopped at any time, the same command draws what is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma images --model models/mini --prompts prompts/coco.jsonl --out images/coco")]
pub struct Args {
    /// The model: a folder in diffusers' layout, a file with the whole model, or the id of one on the Hugging Face Hub,
    /// OWNER/NAME[@REVISION][:FILE].
    #[arg(long, value_name = "DIR|FILE|ID")]
    model: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Prompts as `selma prompts` writes them: one JSON object a line, with id, skill and text.
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: PathBuf,
    /// Folder of the dataset; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A LoRA adapter for all pictures, with its strength; 1 if none is given. Repeat it for several, whose updates add up. A mixture of `selma train router` is one, too.
    #[arg(long = "adapter", visible_alias = "mixture", value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
    /// Add the adapters to the weights, where they cost no time, instead of computing them beside.
    #[arg(long, requires = "adapters")]
    fuse: bool,
    /// What not to draw.
    #[arg(long, value_name = "TEXT")]
    negative: Option<String>,
    /// Width in pixels, together with the height. Default: the model's own.
    #[arg(long, value_name = "PIXELS", requires = "height")]
    width: Option<NonZeroUsize>,
    /// Height in pixels.
    #[arg(long, value_name = "PIXELS", requires = "width")]
    height: Option<NonZeroUsize>,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value = "50")]
    steps: NonZeroUsize,
    /// How closely pictures follow their prompts; 1 is without guidance. Default: 7.5, and 5 for SDXL.
    #[arg(long, value_name = "G", value_parser = values::finite)]
    guidance: Option<f64>,
    /// The scheduler. Default: the model's own.
    #[arg(long, value_name = "NAME", value_parser = values::named::<SchedulerKind>(SchedulerKind::ALL.map(SchedulerKind::name)))]
    scheduler: Option<SchedulerKind>,
    /// A field of the model's scheduler_config.json to set, such as timestep_spacing=trailing; null takes it out. Repeat
    /// it for several.
    #[arg(long = "scheduler-config", value_name = "KEY=VALUE", value_parser = override_of())]
    scheduler_config: Vec<Override>,
    /// Pictures drawn together.
    #[arg(long, value_name = "N", default_value = "8")]
    batch_size: NonZeroUsize,
    /// Pictures of each prompt, which differ by their noise.
    #[arg(long, value_name = "N", default_value = "1")]
    per_prompt: NonZeroUsize,
    /// Seed from which each picture's own is derived.
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "D", default_value = "flex")]
    device: String,
    /// Number type of the networks.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype())]
    dtype: FloatDType,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let prompts = read_prompts(&args.prompts)?;
    let device = device(&args.device)?;
    let adapters = adapters::load(&args.adapters, args.fuse)?;
    let checkpoint = args.options.open(&args.model, args.dtype)?;
    tell_family(&checkpoint, "--config")?;
    let mut pipeline = StableDiffusion::from_checkpoint(&checkpoint, &device)?;
    let model_hash = checkpoint.sha256()?;
    scheduler::configure(&mut pipeline, &args.scheduler_config, args.scheduler)?;
    adapters::attach(&mut pipeline, &args.model, &adapters, args.fuse)?;
    let hashes: Vec<String> = adapters
        .iter()
        .map(|(file, adapter)| match file.weight {
            1.0 => adapter.sha256(),
            weight => format!("{}={weight}", adapter.sha256()),
        })
        .collect();
    let seed = |purpose: &str, indices: &[u64]| derive_seed(args.seed, purpose, indices);
    let drawings = Drawing::of_prompts(&prompts, args.per_prompt.get(), seed);
    let model = args.model.to_string_lossy();
    let style = DrawingStyle {
        steps: args.steps.get(),
        guidance: args.guidance.unwrap_or(pipeline.default_guidance()),
        scheduler: args.scheduler,
        batch_size: args.batch_size.get(),
        model: &model,
        model_hash: &model_hash,
        negative: args.negative.as_deref(),
        size: args
            .width
            .zip(args.height)
            .map(|(width, height)| (width.get(), height.get())),
        adapters: &hashes,
    };
    let mut events = Events::default();
    let observer = &mut |event: selma::RunEvent<'_>| events.receive(event);
    draw(&pipeline, &drawings, &style, &args.out, "images", observer)?;
    events.finish();
    Ok(())
}
