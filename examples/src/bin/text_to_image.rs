//! Text to image: draws a prompt with a Stable Diffusion model in diffusers' layout, with an adapter if one is given.
//!
//!     cargo run --release --bin text_to_image -- models/mini "two red circles" circles.png [adapter.safetensors]

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use selma_diffusion::{StableDiffusion, TextToImage, device};
use selma_lora::Adapter;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (model, prompt, out, adapter) = match args.as_slice() {
        [model, prompt, out] => (model, prompt, out, None),
        [model, prompt, out, adapter] => (model, prompt, out, Some(adapter)),
        _ => bail!("usage: text_to_image MODEL PROMPT OUT.png [ADAPTER]"),
    };
    // "cuda" and "wgpu" are devices, too, if the program is built with these features.
    let mut pipeline = StableDiffusion::load(model, &device("flex")?)?;
    if let Some(adapter) = adapter {
        // An adapter that does not fit the model is an error that lists the layers.
        pipeline.attach(&Adapter::load(adapter)?, "adapter", 1.0)?;
    }
    // One seed a prompt. What is not set here is as in diffusers: 50 steps at guidance 7.5 (5 for SDXL).
    let request = TextToImage {
        steps: 20,
        ..TextToImage::new(vec![prompt.clone()], vec![42])
    };
    let drawn = pipeline.generate(&request, &mut |state| {
        println!("step {} of {}", state.step, state.total);
        ControlFlow::Continue(())
    })?;
    let picture = drawn.images.first().context("no picture")?;
    picture
        .save(out)
        .with_context(|| format!("cannot write {out}"))?;
    Ok(())
}
