//! `selma images`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use selma::draw::{Drawing, DrawingStyle, draw};
use selma_diffusion::noise::derive_seed;
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::{Checkpoint, StableDiffusion, device};
use selma_llm::read_prompts;
use selma_lora::Adapter;

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
    /// Folder of the model, in diffusers' layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts as `selma prompts` writes them: one JSON object a line, with id, skill and text.
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: PathBuf,
    /// Folder of the dataset; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A LoRA adapter for all pictures.
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value = "50")]
    steps: NonZeroUsize,
    /// How closely pictures follow their prompts; 1 is without guidance. Default: 7.5, and 5 for SDXL.
    #[arg(long, value_name = "G", value_parser = values::finite)]
    guidance: Option<f64>,
    /// The scheduler. Default: the model's own.
    #[arg(long, value_name = "NAME", value_parser = values::named::<SchedulerKind>(SchedulerKind::ALL.map(SchedulerKind::name)))]
    scheduler: Option<SchedulerKind>,
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
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let prompts = read_prompts(&args.prompts)?;
    let device = device(&args.device)?;
    let mut pipeline = StableDiffusion::load(&args.model, &device)?;
    let model_hash = Checkpoint::open(&args.model)?.sha256()?;
    let adapter = args.adapter.as_ref().map(Adapter::load).transpose()?;
    let adapter_hash = adapter.as_ref().map(Adapter::sha256);
    if let Some(adapter) = &adapter {
        pipeline.attach(adapter, "adapter", 1.0)?;
    }
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
        adapter: adapter_hash.as_deref(),
    };
    let mut events = Events::default();
    let observer = &mut |event: selma::RunEvent<'_>| events.receive(event);
    draw(&pipeline, &drawings, &style, &args.out, "images", observer)?;
    events.finish();
    Ok(())
}
