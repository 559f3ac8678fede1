//! `selma train`.

mod calibrate;
mod mixture;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, bail};
use burn::tensor::FloatDType;
use image::RgbImage;
use selma::{DataEncoder, Expert, Pick, Previews, RunEvent, TrainingData, Validation};
use selma_dataset::{Crop, Pictures, read_pairs, speaks_of_sides};
use selma_diffusion::{ConfigSource, StableDiffusion, device};
use selma_durable::create_folder;
use selma_lora::{Dtype, Mixture};
use selma_train::{EncodingCache, LrScheduler, TrainConfig, TrainPreset, ValidTrainConfig};

use super::adapter_out::DTYPES;
use super::data::{DataOptions, SelectOptions};
use super::events::Events;
use super::model::{ModelOptions, config_source, tell_family};
use super::values::{finite, named};
use crate::interrupt;
use crate::terminal::say;

/// Train a LoRA expert on a dataset of pictures with captions.
///
/// The dataset is a folder as `selma images` makes it, or one of another program. The folder given by
/// --out gets adapter.safetensors, metrics.jsonl and training.json, which says what it was made from. Stopped at any time, the
/// same command continues.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  selma train --model models/mini --data images/coco --out experts/coco --steps 200 --batch-size 16 --rank 16
  selma train --model models/sd14 --data images/coco --data images/whoops --out experts/both --config train.toml
  selma train --model models/mini --data images/coco --scores scores.jsonl --min dsg=0.9 --rank-by dsg --out experts/coco
  selma train --model models/mini --data images/coco --pairs pairs.jsonl --out experts/coco-dpo
  selma train router --model models/mini --data images/coco --data images/whoops --experts experts/coco/adapter.safetensors experts/whoops/adapter.safetensors --out router
  selma train calibrate --model models/mini --task coco.safetensors=prompts/coco.jsonl --task whoops.safetensors=prompts/whoops.jsonl --out calibration.safetensors"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: Option<TrainArgs>,
    #[command(flatten)]
    reading: DataOptions,
    #[command(flatten)]
    selection: SelectOptions,
}

/// What is done with experts beside training them.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Calibrate(Box<calibrate::Args>),
    Router(Box<mixture::RouterArgs>),
    Weights(Box<mixture::WeightsArgs>),
}

/// How to train.
#[derive(Debug, clap::Args)]
struct TrainArgs {
    /// The model: a folder in diffusers' layout, a file with the whole model, or the id of one on the Hugging Face Hub,
    /// OWNER/NAME[@REVISION][:FILE].
    #[arg(long, value_name = "DIR|FILE|ID")]
    model: PathBuf,
    /// Variant of the model's weight files, such as fp16.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Configurations to use instead of the model's own, or of what the shapes in a single file tell: a folder in the layout of
    /// diffusers, or the name of a published model: sd14, sd15, sd2-base, sd2, sd21-base, sd21, sdxl-base.
    #[arg(long, value_name = "DIR|NAME", value_parser = config_source())]
    model_config: Option<ConfigSource>,
    /// Folder of the tokenizer, instead of the model's own.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// VAE instead of the model's own: a folder, a file, or an id on the Hub.
    #[arg(long, value_name = "DIR|FILE|ID")]
    vae: Option<PathBuf>,
    /// A dataset: a folder with metadata.jsonl or metadata.csv, with a text file beside each picture (kohya's layout, `N_name` folders with repeats too), or tar archives of webdataset. Repeat it to
    /// train on several together.
    #[arg(long, value_name = "DIR|FILE.tar", required = true)]
    data: Vec<PathBuf>,
    /// How often samples of each dataset are shown, in proportion: a number for each --data, in their order. Default: all samples equally often.
    #[arg(long, value_name = "W,W,..", value_delimiter = ',', value_parser = finite, conflicts_with = "pairs")]
    data_weights: Option<Vec<f64>>,
    /// Train on pairs of the dataset's pictures instead (Diffusion-DPO), as `selma pairs` writes them.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "scores")]
    pairs: Option<PathBuf>,
    /// Data that is not trained on, as for --data: the loss on it, always with the same noise and timesteps, is written to validation.jsonl at every checkpoint and after the last step. It should not be the data that results are measured on.
    #[arg(long, value_name = "DIR|FILE.tar", conflicts_with = "pairs")]
    validation: Option<PathBuf>,
    /// Which checkpoint becomes the adapter: the last step, or the best, with the smallest loss on the validation data. Default: last.
    #[arg(long, value_name = "NAME", requires = "validation", value_parser = named::<Pick>(Pick::NAMES))]
    pick: Option<Pick>,
    /// Folder for the adapter; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Settings as a TOML file: those of the recipes' section [train] from `steps` on. Flags go before it.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Published settings to start from: those of SELMA for sd14, sd2 or sdxl (rank 128, 5,000 steps of 64 samples). Flags go before them.
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = named::<TrainPreset>(TrainPreset::NAMES))]
    preset: Option<TrainPreset>,
    /// Optimizer steps.
    #[arg(long, value_name = "N")]
    steps: Option<NonZeroUsize>,
    /// Samples a forward pass.
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Forward passes an optimizer step.
    #[arg(long, value_name = "N")]
    gradient_accumulation: Option<NonZeroUsize>,
    /// Learning rate; its peak, where it changes.
    #[arg(long, value_name = "R")]
    learning_rate: Option<f64>,
    /// How the learning rate changes: constant, linear or cosine, which fall to zero.
    #[arg(long, value_name = "NAME", value_parser = named::<LrScheduler>(LrScheduler::NAMES))]
    lr_scheduler: Option<LrScheduler>,
    /// Steps over which the learning rate rises from zero at the start.
    #[arg(long, value_name = "N")]
    lr_warmup_steps: Option<usize>,
    /// Resize pictures to so many pixels along the short side, and cut a square out of them. Default: they are used as they are; each size has batches of its own.
    #[arg(long, value_name = "PIXELS")]
    resolution: Option<u32>,
    /// Cut the square out of the middle, not anywhere.
    #[arg(long)]
    center_crop: bool,
    /// Mirror half of the pictures. Captions that speak of left and right are then wrong for these.
    #[arg(long)]
    flip: bool,
    /// Instead of squares, cut sizes of several shapes, each of the area of a square of the resolution (kohya's aspect buckets).
    #[arg(long)]
    buckets: bool,
    /// Weigh timesteps by their signal-to-noise ratio, cut off at this number (min-SNR; 5 is usual).
    #[arg(long, value_name = "G")]
    snr_gamma: Option<f64>,
    /// Rank of the adapter; its alpha becomes the same.
    #[arg(long, value_name = "R")]
    rank: Option<NonZeroUsize>,
    /// Number type that the frozen model is kept in: f32, or bf16 or f16 with half the memory. The adapter, the loss and the optimizer are in f32.
    #[arg(long, value_name = "TYPE", value_parser = named::<Dtype>(DTYPES))]
    dtype: Option<Dtype>,
    /// Seed of everything random. Experts that are to be merged should share it.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Steps between checkpoints.
    #[arg(long, value_name = "N", default_value = "100")]
    checkpoint_every: NonZeroUsize,
    /// How many checkpoints are kept, the newest. One is for continuing, and goes when the adapter is finished; several stay.
    #[arg(long, value_name = "N", default_value = "1")]
    keep_checkpoints: NonZeroUsize,
    /// Draw this prompt now and then, to the folder previews beside the adapter. Repeat it for several.
    #[arg(long, value_name = "TEXT")]
    preview: Vec<String>,
    /// Steps of the training between two drawings; also drawn after the last one.
    #[arg(long, value_name = "N", default_value = "500", requires = "preview")]
    preview_every: NonZeroUsize,
    /// Also write the curves for TensorBoard, to the folder tensorboard beside the adapter.
    #[arg(long)]
    tensorboard: bool,
    /// Keep what VAE and text encoders made of pictures and captions in this folder, and read it from there, also in later trainings and in others at the same time. Default: it
    /// is kept in memory, and made anew each time.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Threads that make batches ahead, while the network computes. Results do not depend on it.
    #[arg(long, value_name = "N", default_value = "1")]
    prefetch: usize,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N. Several, as in cuda:0,cuda:1, share every batch, which is cut into as many shards at least.
    #[arg(
        long,
        value_name = "D,D,..",
        value_delimiter = ',',
        default_value = "flex"
    )]
    device: Vec<String>,
}

/// Denoising steps of a preview.
const PREVIEW_STEPS: usize = 25;

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    match (args.command, args.train) {
        (Some(Command::Calibrate(args)), _) => calibrate::run(&args),
        (Some(Command::Router(args)), _) => mixture::router(&args),
        (Some(Command::Weights(args)), _) => mixture::weights(&args),
        (None, Some(train_args)) => {
            let start = base_config(&train_args)?;
            let config = config(&train_args, start)?;
            train(&train_args, &args.reading, &args.selection, config, None)
        }
        (None, None) => bail!("nothing is asked for; see selma train --help"),
    }
}

/// Trains an adapter, or the weights of a mixture.
fn train(
    args: &TrainArgs,
    reading: &DataOptions,
    selection: &SelectOptions,
    config: ValidTrainConfig,
    mixture: Option<&Mixture>,
) -> anyhow::Result<()> {
    let (weights, sets) = (config.data_weights.len(), args.data.len());
    if weights > 0 && weights != sets {
        bail!("there are {weights} weights for {sets} datasets");
    }
    if args.pairs.is_some() && args.data.len() > 1 {
        bail!("--pairs is for one dataset; {} are given", args.data.len());
    }
    let datasets = args.data.iter().map(|path| {
        let pictures = reading.open(path)?;
        selection.select(path, pictures)
    });
    let datasets = datasets.collect::<anyhow::Result<Vec<_>>>()?;
    let pictures: Vec<&dyn Pictures> = datasets.iter().map(|data| &**data).collect();
    let pairs = match (&args.pairs, pictures.as_slice()) {
        (Some(path), [pictures]) => Some(read_pairs(path, *pictures)?),
        _ => None,
    };
    if config.geometry.flip {
        tell_sides(&pictures);
    }
    let devices = args.device.iter().map(|name| device(name));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let [device, further_devices @ ..] = devices.as_slice() else {
        bail!("--device names no device");
    };
    let validation = match &args.validation {
        Some(path) => Some(reading.open(path)?),
        None => None,
    };
    // Before the pictures are encoded: a folder that cannot be written is found at once.
    create_folder(&args.out)?;
    let options = ModelOptions::new(
        args.variant.clone(),
        args.model_config.clone(),
        args.tokenizer.clone(),
        args.vae.clone(),
    );
    let unet_dtype = config.unet_dtype();
    let checkpoint = options.open_with_unet(&args.model, FloatDType::F32, unet_dtype)?;
    tell_family(&checkpoint, "--model-config")?;
    let model_hash = checkpoint.sha256()?;
    let pipeline = StableDiffusion::from_checkpoint(&checkpoint, device)?;
    let cache = args.cache.as_deref();
    let cache = cache.map(|folder| EncodingCache::open(folder, &pipeline));
    let cache = cache.transpose()?;
    let mut events = Events::default();
    let mut observe = |event: RunEvent<'_>| events.receive(event);
    let encoder = DataEncoder {
        pipeline: &pipeline,
        config: &config,
        cache: cache.as_ref(),
        task: "training",
    };
    let all = |_: &RgbImage, _: &str| Ok(true);
    let data = match (&pairs, pictures.as_slice()) {
        (Some(pairs), [pictures]) => {
            TrainingData::Pairs(encoder.pairs(*pictures, pairs, &mut observe)?)
        }
        _ => TrainingData::Pictures(encoder.datasets(&pictures, &all, &mut observe)?),
    };
    let validation_config = config.for_validation();
    let encoder = DataEncoder {
        config: &validation_config,
        task: "validation",
        ..encoder
    };
    let validation = match &validation {
        Some(data) => {
            let set = encoder.datasets(&[&**data], &all, &mut observe)?;
            Some(TrainingData::Pictures(set))
        }
        None => None,
    };
    let names = args.data.iter().filter_map(|path| path.file_name());
    let skills: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let previews = (!args.preview.is_empty()).then(|| Previews {
        prompts: args.preview.clone(),
        every: args.preview_every.get(),
        steps: PREVIEW_STEPS,
        seed: config.seed,
    });
    let expert = Expert {
        name: "training",
        skills: &skills,
        config,
        mixture,
        validation: validation.as_ref().map(|data| Validation {
            data,
            pick: args.pick.unwrap_or_default(),
        }),
        further_devices,
        model_hash: &model_hash,
        checkpoint_every: args.checkpoint_every.get(),
        keep_checkpoints: args.keep_checkpoints.get(),
        previews: previews.as_ref(),
        prefetch: args.prefetch,
        timing: true,
        tensorboard: args.tensorboard,
    };
    expert.train(&pipeline, &data, &args.out, &mut observe)?;
    events.finish();
    if let Some(path) = Expert::result(&args.out) {
        say(format_args!("{}", path.display()));
    }
    Ok(())
}

/// Says how many captions are wrong for mirrored pictures.
fn tell_sides(pictures: &[&dyn Pictures]) {
    let texts = pictures
        .iter()
        .flat_map(|data| (0..data.len()).filter_map(|index| data.text(index)));
    let count = texts.filter(|text| speaks_of_sides(text)).count();
    if count > 0 {
        say(format_args!(
            "warning: {count} captions speak of left or right, which mirrored pictures contradict"
        ));
    }
}

/// The settings that flags go before.
fn base_config(args: &TrainArgs) -> anyhow::Result<TrainConfig> {
    Ok(match &args.config {
        None => args
            .preset
            .map_or_else(TrainConfig::default, TrainPreset::config),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?
        }
    })
}

/// Settings with what the flags say instead.
fn config(args: &TrainArgs, mut config: TrainConfig) -> anyhow::Result<ValidTrainConfig> {
    let over = |setting: &mut usize, flag: Option<NonZeroUsize>| {
        *setting = flag.map_or(*setting, NonZeroUsize::get);
    };
    over(&mut config.steps, args.steps);
    over(&mut config.batch_size, args.batch_size);
    over(
        &mut config.gradient_accumulation,
        args.gradient_accumulation,
    );
    config.learning_rate = args.learning_rate.unwrap_or(config.learning_rate);
    config.lr_scheduler = args.lr_scheduler.unwrap_or(config.lr_scheduler);
    config.lr_warmup_steps = args.lr_warmup_steps.unwrap_or(config.lr_warmup_steps);
    let geometry = &mut config.geometry;
    geometry.resolution = args.resolution.or(geometry.resolution);
    geometry.flip |= args.flip;
    if args.center_crop {
        geometry.crop = Crop::Center;
    }
    if args.buckets {
        geometry.buckets.get_or_insert_default();
    }
    if let Some(weights) = &args.data_weights {
        config.data_weights.clone_from(weights);
    }
    config.dtype = args.dtype.unwrap_or(config.dtype);
    // Each device has a part of every batch.
    config.shards = config.shards.max(args.device.len());
    config.snr_gamma = args.snr_gamma.or(config.snr_gamma);
    config.seed = args.seed.unwrap_or(config.seed);
    if let Some(rank) = args.rank {
        config.rank = rank.get();
        config.alpha = rank.get() as f64;
    }
    Ok(config.validate()?)
}
