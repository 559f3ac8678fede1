//! Training: one LoRA expert on a dataset of pictures with captions.
//!
//!     cargo run --release --bin train_expert -- models/mini dataset expert.safetensors 100

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::ops::ControlFlow;

use anyhow::bail;
use selma_dataset::Dataset;
use selma_diffusion::{StableDiffusion, device};
use selma_lora::{Dtype, Format};
use selma_train::{Denoising, TrainConfig, Trainer, TrainingSet};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, out, steps] = args.as_slice() else {
        bail!("usage: train_expert MODEL DATASET OUT.safetensors STEPS");
    };
    let device = device("flex")?;
    let pipeline = StableDiffusion::load(model, &device)?;

    // Pictures and captions go through VAE and text encoder once, not at every step.
    let dataset = Dataset::open(folder)?;
    let samples = dataset.iter().enumerate();
    let samples =
        samples.map(|(index, sample)| anyhow::Ok((dataset.image(index)?, sample.text.clone())));
    // Experts that are to be merged should share the seed: their factors A then start out the same.
    let config = TrainConfig {
        steps: steps.parse()?,
        batch_size: 8,
        gradient_accumulation: 1,
        rank: 16,
        alpha: 16.0,
        seed: 42,
        ..TrainConfig::default()
    };
    let config = config.validate()?;
    let set = TrainingSet::encode(&pipeline, &config, None, samples)?;
    let scheduler = &pipeline.scheduler_config;
    let objective = Denoising::new(scheduler)?;
    let mut trainer = Trainer::new(pipeline.unet, scheduler, objective, config, &device)?;
    trainer.run(&set, None, &mut |progress| {
        println!(
            "step {} of {}: loss {:.4}",
            progress.step, progress.steps, progress.loss
        );
        ControlFlow::Continue(())
    })?;
    trainer.adapter()?.save(out, Format::Kohya, Dtype::F32)?;
    Ok(())
}
