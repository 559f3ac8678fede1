//! `selma generate`.

mod origin;
mod request;
mod seeds;
mod sizes;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::bail;
use burn::tensor::FloatDType;
use selma_diffusion::models::VaeTiling;
use selma_diffusion::png::encode;
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::{DiffusionError, Latents, StableDiffusion, device};

use self::origin::Origin;
use self::seeds::SeedRange;
use self::sizes::SizeArgs;
use super::adapters;
use super::events::tell_truncated;
use super::model::{ModelOptions, dtype, tell_family};
use super::scheduler::{self, Override, override_of};
use super::values::{WeightedFile, finite, named, share, weighted_file};
use crate::interrupt;
use crate::output::{self, Output, spare};
use crate::progress::Progress;
use crate::terminal::say;

/// Draw pictures of prompts with a Stable Diffusion model.
///
/// The model is a folder in the layout of diffusers, such as models/mini, a single file in the original layout
/// (.safetensors or .ckpt, which is read without executing anything), or the id of one on the Hugging Face Hub, which is
/// downloaded once. The same seed gives the same picture on every device and in every batch, up to rounding. Several pictures are numbered:
/// FILE-1.png, FILE-2.png, .., prompt by prompt; the seed grows by one from picture to picture. Each file says how it was
/// drawn, in the form that other programs read and in one of selma's own: see `selma inspect FILE.png`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma generate --model models/mini --prompt \"two red circles\" --out circles.png
  selma generate --model stable-diffusion-v1-5/stable-diffusion-v1-5 --prompt \"a red kite\" --out kite.png
  selma generate --model v1-5-pruned-emaonly.safetensors --prompt \"a fox in the snow\" --out fox.png
  selma generate --model models/mini --prompt \"a red star\" --prompt \"a blue star\" --images-per-prompt 4 --batch-size 4 --out star.png
  selma generate --model models/mini --adapter merged.safetensors=0.8 --fuse --guidance 4 --prompt \"a blue star\" --out star.png
  selma generate --model models/mini --init-image star.png --strength 0.5 --prompt \"a red star\" --seed 1,7,20-24 --out red.png
  selma generate --model models/mini --scheduler euler --scheduler-config timestep_spacing=trailing --prompt \"a cube\" --out cube.png")]
pub struct Args {
    /// The model: a folder in diffusers' layout, a file with the whole model, or the id of one on the Hugging Face Hub,
    /// OWNER/NAME[@REVISION][:FILE].
    #[arg(long, value_name = "DIR|FILE|ID")]
    model: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// What to draw. Repeat it for several pictures.
    #[arg(long = "prompt", value_name = "TEXT", required = true)]
    prompts: Vec<String>,
    /// What not to draw. Once for all prompts, or once for each.
    #[arg(long = "negative", value_name = "TEXT")]
    negatives: Vec<String>,
    /// Pictures of each prompt, which differ by their seeds. Default: 1, or as many as there are seeds.
    #[arg(long, value_name = "N")]
    images_per_prompt: Option<NonZeroUsize>,
    /// Pictures drawn together: more are faster on a GPU and take more memory.
    #[arg(long, value_name = "N", default_value = "1")]
    batch_size: NonZeroUsize,
    /// Number of denoising steps.
    #[arg(long, value_name = "N", default_value = "50")]
    steps: NonZeroUsize,
    /// Scale of classifier-free guidance: how strongly the picture follows the prompt. 1 is none. Default: 7.5, and 5
    /// for SDXL.
    #[arg(long, value_name = "SCALE", value_parser = finite)]
    guidance: Option<f64>,
    /// How far strong guidance is kept from making pictures too bright, 0 to 1; 0.7 is usual for models that predict v.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    guidance_rescale: f64,
    /// Layers of the text encoders to skip, counted as diffusers does.
    #[arg(long, value_name = "N")]
    clip_skip: Option<usize>,
    /// How the noise is taken away step by step. Default: what the model's folder names.
    #[arg(long, value_name = "NAME", value_parser = named::<SchedulerKind>(SchedulerKind::ALL.map(SchedulerKind::name)))]
    scheduler: Option<SchedulerKind>,
    /// A field of the model's scheduler_config.json to set, such as timestep_spacing=trailing; null takes it out. Repeat
    /// it for several.
    #[arg(long = "scheduler-config", value_name = "KEY=VALUE", value_parser = override_of())]
    scheduler_config: Vec<Override>,
    /// Noise that the scheduler ddim adds after every step, 0 to 1; at 1 it is as random as ddpm. Other schedulers have none.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    eta: f64,
    /// Width in pixels. Default: that of the initial image or latents if given, else the model's own.
    #[arg(long, value_name = "PIXELS")]
    width: Option<NonZeroUsize>,
    /// Height in pixels; default as for the width.
    #[arg(long, value_name = "PIXELS")]
    height: Option<NonZeroUsize>,
    /// Seed of the noise. One for the first picture, from which the others count on; or several, separated by commas and
    /// as ranges like 3-7: one for each picture, or one for each of the pictures of a prompt.
    #[arg(long = "seed", value_name = "S", default_value = "0", value_delimiter = ',', value_parser = SeedRange::parse)]
    seeds: Vec<SeedRange>,
    /// An adapter to use (LoRA, DoRA, LoHa, LoKr or full differences, in any format, or a mixture of `selma train router`), with its strength; 1 if none is given. Repeat it for several, whose updates add up.
    #[arg(long = "adapter", visible_alias = "mixture", value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
    /// Add the adapters to the weights, where they cost no time, instead of computing them beside.
    #[arg(long, requires = "adapters")]
    fuse: bool,
    /// A picture to start from instead of noise. Once for all prompts, or once for each. It is resized to the width and
    /// height.
    #[arg(long = "init-image", value_name = "FILE")]
    init_images: Vec<PathBuf>,
    /// How far to leave the initial image, 0 to 1: the share of the steps that is made. Default: 0.8, and 0.3 for SDXL.
    #[arg(long, value_name = "SHARE", requires = "init_images", value_parser = share)]
    strength: Option<f64>,
    /// Take the noise from this file instead of the seed: a safetensors file with the tensor "latents" [N,C,h,w], unit
    /// normal, before the scheduler's scaling. One picture for each of the N; a single prompt serves all.
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Save the final latents, before the VAE's scaling, in the same form.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Let the VAE work in overlapping tiles, so that large pictures need less memory. They differ a little from those
    /// without tiles.
    #[arg(long)]
    vae_tiling: bool,
    /// Side of the tiles. Default: the VAE's own size.
    #[arg(long, value_name = "PIXELS", requires = "vae_tiling")]
    vae_tile_size: Option<NonZeroUsize>,
    /// The picture, as PNG.
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Leave out of the picture's file how it was drawn.
    #[arg(long)]
    no_metadata: bool,
    /// Where to compute: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    device: String,
    /// Number type of the networks.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype())]
    dtype: FloatDType,
    // Last, since its heading would be that of the flags behind it.
    #[command(flatten)]
    sizes: SizeArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let device = device(&args.device)?;
    let request = request::build(&args)?;
    let per_prompt = request.prompts.len() / args.prompts.len();
    // Before the model is loaded, so that a wrong path costs no time.
    let paths = paths(&args.out, request.prompts.len());
    check_paths(&args, &paths)?;
    let adapters = adapters::load(&args.adapters, args.fuse)?;
    let checkpoint = args.options.open(&args.model, args.dtype)?;
    tell_family(&checkpoint, "--config")?;
    if args.scheduler.is_none() && args.scheduler_config.is_empty() {
        // Whether there is one is known before the model is loaded.
        checkpoint.scheduler()?;
    }
    let mut origin = (!args.no_metadata)
        .then(|| Origin::start(&args, &checkpoint, &adapters))
        .transpose()?;

    let mut pipeline = StableDiffusion::from_checkpoint(&checkpoint, &device)?;
    scheduler::configure(&mut pipeline, &args.scheduler_config, args.scheduler)?;
    adapters::attach(&mut pipeline, &args.model, &adapters, args.fuse)?;
    pipeline.vae_tiling = tiling(&args, &pipeline);
    let batches = request::fit_to_latents(request, &pipeline).batches(args.batch_size.get())?;

    let mut progress: Option<Progress> = None;
    let mut cut = BTreeSet::new();
    let mut latents = Vec::new();
    let mut pictures = paths.iter().enumerate();
    for (done, batch) in batches.iter().enumerate() {
        let drawn = pipeline.generate(batch, &mut |state| {
            for text in state.truncated {
                if cut.insert(text.text.clone()) {
                    tell_truncated(&text.cut, text.dropped);
                }
            }
            let total = state.total * batches.len();
            progress
                .get_or_insert_with(|| Progress::new("drawing", total as u64, "steps"))
                .set((done * state.total + state.step) as u64, "");
            interrupt::flow()
        });
        let drawn = match drawn {
            Err(DiffusionError::Cancelled) if done == 0 => {
                bail!("interrupted; nothing was written")
            }
            Err(DiffusionError::Cancelled) => {
                bail!("interrupted; the pictures after the last one written are missing")
            }
            other => other?,
        };
        for (index, (image, (number, path))) in drawn.images.iter().zip(&mut pictures).enumerate() {
            let settings = match &mut origin {
                Some(origin) => {
                    Some(origin.settings(&pipeline, batch, index, number / per_prompt)?)
                }
                None => None,
            };
            let png = encode(image, settings.as_ref())?;
            Output::create(path)?.finish_with(&png)?;
            let wrote = format!("wrote {}", path.display());
            match &progress {
                Some(progress) => progress.say(wrote),
                None => say(wrote),
            }
        }
        latents.push(drawn.latents);
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(path) = &args.save_latents {
        Latents::concat(&latents)?.save(path)?;
    }
    Ok(())
}

/// Sees that every file can be written and none overwrites what is read.
fn check_paths(args: &Args, paths: &[PathBuf]) -> anyhow::Result<()> {
    let adapters = args.adapters.iter().map(|file| &file.path);
    let inputs = adapters.chain(&args.init_images).chain(&args.init_latents);
    spare(
        inputs.map(PathBuf::as_path),
        paths.iter().chain(&args.save_latents).map(PathBuf::as_path),
    )?;
    for path in paths {
        // Dropped at once: it leaves nothing.
        Output::create(path)?;
    }
    args.save_latents
        .as_deref()
        .map_or(Ok(()), output::check_file)
}

fn tiling(args: &Args, pipeline: &StableDiffusion) -> Option<VaeTiling> {
    let config = &pipeline.vae_config;
    args.vae_tiling.then(|| match args.vae_tile_size {
        Some(size) => VaeTiling::of_size(config, size.get()),
        None => VaeTiling::new(config),
    })
}

/// `FILE.png` for one picture, `FILE-1.png`, `FILE-2.png`, .. for several.
fn paths(out: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![out.to_owned()];
    }
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let ending = out
        .extension()
        .map(|ending| format!(".{}", ending.to_string_lossy()));
    let ending = ending.unwrap_or_default();
    (1..=count)
        .map(|number| out.with_file_name(format!("{stem}-{number}{ending}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(paths(Path::new("a/b.png"), 1), [Path::new("a/b.png")]);
        assert_eq!(
            paths(Path::new("a/b.png"), 2),
            [Path::new("a/b-1.png"), Path::new("a/b-2.png")]
        );
        assert_eq!(
            paths(Path::new("b"), 2),
            [Path::new("b-1"), Path::new("b-2")]
        );
    }
}
