//! Group normalisation with SiLU behind it as one operation, against the same as plain tensor operations.
//!
//!     cargo run --release --bin fused_kernels

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::Instant;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Distribution, Tensor};

fn main() -> anyhow::Result<()> {
    let device = Device::flex();
    let x = Tensor::<4>::random([2, 320, 64, 64], Distribution::Normal(0.0, 1.0), &device);
    let (weight, bias) = (Tensor::ones([320], &device), Tensor::zeros([320], &device));
    let start = Instant::now();
    let fused = selma_kernels::group_norm(x.clone(), weight, bias, 32, 1e-5, true);
    println!(
        "one operation: {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );

    let start = Instant::now();
    let groups = x.reshape([2, 32, 10 * 64 * 64]);
    let centred = groups.clone() - groups.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / (variance + 1e-5).sqrt()).reshape([2, 320, 64, 64]);
    let plain = normal.clone() * sigmoid(normal);
    println!(
        "plain operations: {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );

    let difference: f32 = (fused - plain).abs().max().try_into_scalar()?;
    println!("largest difference: {difference:.1e}");
    Ok(())
}
