//! Median milliseconds of the convolution and of burn's own, forward, with the gradient of the input, and with all gradients.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod common;

use std::hint::black_box;

use burn::tensor::module::conv2d as plain;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor};
use common::median;
use selma_kernels::conv2d;

/// A convolution with its bias, stride and padding.
type Function = dyn Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>;

/// Prints one row for `[batch, inputs, size, size]` and so many `outputs`.
fn row(shape: [usize; 4], outputs: usize, kernel: usize, stride: usize) {
    let padding = kernel / 2;
    let options = ConvOptions::new([stride, stride], [padding, padding], [1, 1], 1);
    let burn = move |x, w, b| plain(x, w, Some(b), options.clone());
    let ours = move |x, w, b| conv2d(x, w, Some(b), stride, padding);
    let functions: [&Function; 2] = [&burn, &ours];

    let device = Device::flex();
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::<4>::random(shape, normal, &device);
    let weight = Tensor::<4>::random([outputs, shape[1], kernel, kernel], normal, &device);
    let bias = Tensor::<1>::random([outputs], normal, &device);
    let forward = |f: &Function| {
        let run = |()| {
            black_box(f(x.clone(), weight.clone(), bias.clone()));
        };
        median(|| (), run)
    };
    let device = device.autodiff();
    let track = |all: bool, f: &Function| {
        let x = Tensor::<4>::from_data(x.to_data(), &device).require_grad();
        let mut weight = Tensor::<4>::from_data(weight.to_data(), &device);
        let mut bias = Tensor::<1>::from_data(bias.to_data(), &device);
        if all {
            weight = weight.require_grad();
            bias = bias.require_grad();
        }
        let run = |()| {
            let y = f(x.clone(), weight.clone(), bias.clone());
            black_box(y.backward());
        };
        median(|| (), run)
    };
    let pairs = [
        functions.map(forward),
        functions.map(|f| track(false, f)),
        functions.map(|f| track(true, f)),
    ];
    let cells = pairs.map(|[burn, ours]| format!("{burn:.2} / {ours:.2} = {:.1}", burn / ours));
    println!(
        "| {shape:?} | {outputs} | {kernel} | {stride} | {} |",
        cells.join(" | ")
    );
}

fn main() {
    println!("| input | outputs | kernel | stride | forward | and gradient of x | all gradients |");
    println!("|---|---|---|---|---|---|---|");
    for (shape, outputs, kernel, stride) in [
        ([16, 3, 64, 64], 16, 3, 1),
        ([16, 16, 64, 64], 16, 3, 1),
        ([16, 32, 64, 64], 16, 3, 1),
        ([16, 16, 64, 64], 3, 3, 1),
        ([16, 16, 64, 64], 16, 3, 2),
        ([16, 32, 32, 32], 32, 3, 1),
        ([16, 64, 16, 16], 64, 3, 1),
        ([32, 80, 8, 8], 80, 3, 1),
        ([32, 80, 8, 8], 80, 3, 2),
        ([32, 160, 4, 4], 160, 3, 1),
        ([32, 320, 4, 4], 160, 3, 1),
        ([32, 320, 4, 4], 160, 1, 1),
        ([32, 80, 8, 8], 4, 3, 1),
        ([32, 4, 8, 8], 80, 1, 1),
        ([2, 320, 64, 64], 320, 3, 1),
        ([2, 320, 64, 64], 320, 1, 1),
        ([2, 640, 32, 32], 640, 3, 1),
        ([2, 1280, 8, 8], 1280, 3, 1),
        ([1, 128, 256, 256], 128, 3, 1),
    ] {
        row(shape, outputs, kernel, stride);
    }
}
