//! Trains an adapter on one UNet of a model for a few steps with given factors and batches, and says what that took.
//!
//! ```sh
//! cargo run --release --example train_full_size -- FOLDER INPUTS.safetensors FACTORS.safetensors STEPS [recompute] [bf16] [device=cuda]
//! ```
//!
//! `tools/train_full_size.py` makes models of the published sizes with random weights, runs this program and diffusers with PEFT on them, and compares. One line of JSON
//! is printed: losses, seconds of every step, and the most memory (in bytes, the mapped file included) that was held at the end of the loading and in all.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

#[path = "../../selma-diffusion/examples/common/memory.rs"]
mod memory;

use std::error::Error;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use memory::peak_bytes;
use selma_diffusion::models::{AddedConditioning, Conditioning, TimeIds};
use selma_diffusion::weights::Weights;
use selma_diffusion::{Checkpoint, CheckpointOptions, device};
use selma_lora::{Adapter, Dtype};
use selma_train::{Batch, Denoising, Drawn, TrainConfig, Trainer};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, inputs, factors, steps, options @ ..] = arguments.as_slice() else {
        return Err(
            "usage: train_full_size FOLDER INPUTS FACTORS STEPS [recompute] [bf16] [device=cuda]"
                .into(),
        );
    };
    let steps: usize = steps.parse()?;
    let named = options
        .iter()
        .find_map(|option| option.strip_prefix("device="));
    let device = device(named.unwrap_or("flex"))?;
    let inputs = Weights::open(inputs)?;
    let adapter = Adapter::load(factors)?;
    let rank = adapter
        .modules
        .values()
        .next()
        .map_or(1, |module| module.rank());
    let config = TrainConfig {
        steps,
        batch_size: 1,
        gradient_accumulation: 1,
        rank,
        alpha: rank as f64,
        recompute: options.iter().any(|option| option == "recompute"),
        dtype: match options.iter().any(|option| option == "bf16") {
            true => Dtype::BF16,
            false => Dtype::F32,
        },
        ..TrainConfig::default()
    };
    let options = CheckpointOptions {
        unet_dtype: Some(config.unet_dtype()),
        ..CheckpointOptions::default()
    };
    let checkpoint = Checkpoint::open_with(folder, options)?;
    let unet = checkpoint.unet(&device)?.model;
    let scheduler = checkpoint.scheduler_config()?;
    let objective = Denoising::new(&scheduler)?;
    let config = config.validate()?;
    let mut trainer =
        Trainer::from_adapter(unet, &scheduler, objective, config, &adapter, &device)?;
    let loaded_bytes = peak_bytes()?;

    let (mut losses, mut seconds) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let batch = batch(&inputs, step, &device)?;
        let samples = vec![step];
        let start = Instant::now();
        let progress = trainer.optimize(&[Drawn { batch, samples }])?;
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(progress.loss);
    }
    let report = json!({
        "losses": losses,
        "step_seconds": seconds,
        "loaded_bytes": loaded_bytes,
        "peak_bytes": peak_bytes()?,
    });
    println!("{report}");
    Ok(())
}

/// The batch of a step, a slice of each of the inputs.
fn batch(inputs: &Weights, step: usize, device: &Device) -> Result<Batch, Box<dyn Error>> {
    let (timesteps, _) = inputs.require("timesteps")?;
    let timestep = *timesteps.get(step).ok_or("too few timesteps")?;
    let latents: Tensor<4> = slice(inputs, "latents", step, device)?;
    let [_, _, height, width] = latents.dims();
    let added = match inputs.shape("text_embeds") {
        Some(_) => Some(AddedConditioning {
            text_embeds: slice(inputs, "text_embeds", step, device)?,
            time_ids: vec![TimeIds::of_size(8 * height, 8 * width)],
        }),
        None => None,
    };
    Ok(Batch {
        latents,
        noise: slice(inputs, "noise", step, device)?,
        input_noise: None,
        timesteps: vec![timestep as usize],
        conditioning: Conditioning {
            context: slice(inputs, "context", step, device)?,
            added,
        },
    })
}

fn slice<const D: usize>(
    inputs: &Weights,
    name: &str,
    step: usize,
    device: &Device,
) -> Result<Tensor<D>, Box<dyn Error>> {
    let (values, shape) = inputs.require(name)?;
    let shape = shape.get(1..).unwrap_or_default().to_vec();
    let count: usize = shape.iter().product();
    let values = values.get(step * count..(step + 1) * count);
    let values = values.ok_or_else(|| format!("too few {name}"))?.to_vec();
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}
