//! `selma generate`.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::FloatDType;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use image::{ImageFormat, RgbImage};
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::{DiffusionError, Latents, StableDiffusion, TextToImage, device};
use selma_lora::Adapter;

use super::values::{WeightedFile, finite, named, weighted_file};
use crate::interrupt;
use crate::models;
use crate::output::{self, Output, spare};
use crate::progress::Progress;
use crate::terminal::say;

/// Draw pictures of prompts with a Stable Diffusion model.
///
/// The model is a folder in the layout of diffusers, such as models/mini, or the id of one on the Hugging Face Hub, which is
/// downloaded once. The same seed gives the same picture on every device, up to rounding. With several prompts the pictures are numbered:
/// FILE-1.png, FILE-2.png, ..; the seed grows by one from picture to picture.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma generate --model models/mini --prompt \"two red circles\" --out circles.png
  selma generate --model stable-diffusion-v1-5/stable-diffusion-v1-5 --prompt \"a red kite\" --out kite.png
  selma generate --model models/mini --adapter merged.safetensors=0.8 --guidance 4 --prompt \"a blue star\" --out star.png")]
pub struct Args {
    /// The model: a folder in diffusers' layout, or the id of one on the Hugging Face Hub, OWNER/NAME[@REVISION].
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Which weights of the model to use, such as fp16, where a model on the Hub has several.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// What to draw. Repeat it for several pictures.
    #[arg(long = "prompt", value_name = "TEXT", required = true)]
    prompts: Vec<String>,
    /// What not to draw.
    #[arg(long, value_name = "TEXT")]
    negative: Option<String>,
    /// Number of denoising steps.
    #[arg(long, value_name = "N", default_value = "50")]
    steps: NonZeroUsize,
    /// Scale of classifier-free guidance: how strongly the picture follows the prompt. 1 is none.
    #[arg(long, value_name = "SCALE", default_value = "7.5", value_parser = finite)]
    guidance: f64,
    /// How the noise is taken away step by step. Default: what the model's folder names.
    #[arg(long, value_name = "NAME", value_parser = named::<SchedulerKind>(SchedulerKind::ALL.map(SchedulerKind::name)))]
    scheduler: Option<SchedulerKind>,
    /// Width in pixels. Default: that of the initial latents if given, else the model's own.
    #[arg(long, value_name = "PIXELS")]
    width: Option<NonZeroUsize>,
    /// Height in pixels; default as for the width.
    #[arg(long, value_name = "PIXELS")]
    height: Option<NonZeroUsize>,
    /// Seed of the initial noise.
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// A LoRA adapter to use, with its strength; 1 if none is given. Repeat it for several, whose updates add up.
    #[arg(long = "adapter", value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
    /// Start from these latents instead of the seed's: a safetensors file with the tensor "latents" [N,C,h,w], unit
    /// normal, before the scheduler's scaling. One picture for each of the N; a single prompt serves all.
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Save the final latents, before the VAE's scaling, in the same form.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// The picture, as PNG.
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Where to compute: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    device: String,
    /// Number type of the networks.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype())]
    dtype: FloatDType,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let device = device(&args.device)?;
    let init = args
        .init_latents
        .as_deref()
        .map(Latents::load)
        .transpose()?;
    let request = request(&args, init)?;
    // Before the model is loaded, so that a wrong path costs no time.
    let paths = paths(&args.out, request.prompts.len());
    let adapters = args.adapters.iter().map(|file| file.path.as_path());
    spare(
        adapters.chain(args.init_latents.as_deref()),
        paths
            .iter()
            .map(PathBuf::as_path)
            .chain(args.save_latents.as_deref()),
    )?;
    let outputs = paths
        .iter()
        .map(|path| Output::create(path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &args.save_latents {
        output::check_file(path)?;
    }
    let adapters = args
        .adapters
        .iter()
        .map(|file| Ok((file, Adapter::load(&file.path)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;

    let model = models::locate(&args.model, args.variant.as_deref())?;
    let mut pipeline = StableDiffusion::load(&model, &device)?;
    for (index, (file, adapter)) in adapters.iter().enumerate() {
        attach(&mut pipeline, &args.model, file, adapter, index)?;
    }
    let pipeline = pipeline.with_dtype(args.dtype);
    let request = fit_to_latents(request, &pipeline);
    let mut progress: Option<Progress> = None;
    let drawn = pipeline.generate(&request, &mut |state| {
        let total = state.total as u64;
        progress
            .get_or_insert_with(|| Progress::new("drawing", total, "steps"))
            .set(state.step as u64, "");
        interrupt::flow()
    });
    let generated = match drawn {
        Err(DiffusionError::Cancelled) => bail!("interrupted; nothing was written"),
        other => other?,
    };
    if let Some(progress) = progress {
        progress.finish();
    }
    let pictures = generated
        .images
        .iter()
        .map(png)
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &args.save_latents {
        generated.latents.save(path)?;
    }
    for ((output, png), path) in outputs.into_iter().zip(&pictures).zip(&paths) {
        output.finish_with(png)?;
        say(format_args!("wrote {}", path.display()));
    }
    Ok(())
}

/// The flags as a request. A single prompt is repeated for all given latents.
fn request(args: &Args, init: Option<Latents>) -> anyhow::Result<TextToImage> {
    let mut prompts = args.prompts.clone();
    if let Some(Latents {
        shape: [count, ..], ..
    }) = init
        && let [prompt] = prompts.as_slice()
    {
        prompts = vec![prompt.clone(); count];
    }
    let seeds = (0..prompts.len() as u64)
        .map(|index| {
            args.seed
                .checked_add(index)
                .context("the seed is too large for so many pictures")
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(TextToImage {
        negative_prompt: args.negative.clone(),
        steps: args.steps.get(),
        guidance: args.guidance,
        scheduler: args.scheduler,
        width: args.width.map(NonZeroUsize::get),
        height: args.height.map(NonZeroUsize::get),
        init_latents: init,
        ..TextToImage::new(prompts, seeds)
    })
}

/// Takes the picture's size from the initial latents where no flag gives it.
fn fit_to_latents(mut request: TextToImage, pipeline: &StableDiffusion) -> TextToImage {
    if let Some(Latents {
        shape: [_, _, height, width],
        ..
    }) = &request.init_latents
    {
        let factor = pipeline.vae_config.factor();
        request.width = request.width.or(Some(width * factor));
        request.height = request.height.or(Some(height * factor));
    }
    request
}

fn attach(
    pipeline: &mut StableDiffusion,
    model: &Path,
    file: &WeightedFile,
    adapter: &Adapter,
    index: usize,
) -> anyhow::Result<()> {
    let reports = pipeline
        .attach(adapter, &format!("adapter {index}"), file.weight)
        .with_context(|| format!("{} does not fit {}", file.path.display(), model.display()))?;
    let matched: usize = reports.iter().map(|report| report.matched.len()).sum();
    let zero: usize = reports.iter().map(|report| report.zero.len()).sum();
    let path = file.path.display();
    say(format_args!(
        "{path}: {matched} layers, weight {}",
        file.weight
    ));
    if zero == matched {
        say(format_args!(
            "warning: {path} changes nothing, all its updates are zero"
        ));
    }
    Ok(())
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

fn png(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .context("cannot encode the picture")?;
    Ok(bytes.into_inner())
}

fn dtype() -> impl TypedValueParser<Value = FloatDType> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).map(|name| match name.as_str() {
        "f16" => FloatDType::F16,
        "bf16" => FloatDType::BF16,
        _ => FloatDType::F32,
    })
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
