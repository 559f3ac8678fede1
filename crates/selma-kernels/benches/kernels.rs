//! Median milliseconds of each kernel and of burn's own operations, forward and with the backward pass.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod common;

use std::hint::black_box;

use burn::tensor::{Device, Distribution, Tensor, activation};
use common::median;
use selma_kernels::{geglu, gelu, group_norm, silu};

/// Prints one row: forward of `plain` and `kernel`, then forward and backward of both.
fn row<const D: usize>(
    name: &str,
    shape: [usize; D],
    plain: impl Fn(Tensor<D>) -> Tensor<D>,
    kernel: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    let device = Device::flex();
    let x = Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    // The input belongs to the function alone, as between the layers of a model; both may overwrite it.
    let forward = |f: &dyn Fn(Tensor<D>) -> Tensor<D>| {
        median(
            || x.clone() + 0.0,
            |x| {
                black_box(f(x));
            },
        )
    };
    let tracked = Tensor::from_data(x.to_data(), &device.autodiff()).require_grad();
    let both = |f: &dyn Fn(Tensor<D>) -> Tensor<D>| {
        median(
            || tracked.clone(),
            |x| {
                black_box(f(x).backward());
            },
        )
    };
    let times = [
        forward(&plain),
        forward(&kernel),
        both(&plain),
        both(&kernel),
    ];
    let [a, b, c, d] = times.map(|t| format!("{t:.2}"));
    println!("| {name} | {shape:?} | {a} | {b} | {c} | {d} |");
}

fn plain_geglu(x: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = x.dims();
    let value = x.clone().narrow(2, 0, width / 2);
    value * activation::gelu(x.narrow(2, width / 2, width / 2))
}

fn plain_group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    with_silu: bool,
) -> Tensor<4> {
    let shape = x.dims();
    let [n, c, h, w] = shape;
    let x = x.reshape([n, 32, c / 32 * h * w]);
    let mean = x.clone().mean_dim(2);
    let x = x - mean;
    let variance = x.clone().square().mean_dim(2);
    let x = (x / (variance + 1e-5).sqrt()).reshape(shape);
    let y = x * weight.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1]);
    if with_silu { activation::silu(y) } else { y }
}

fn main() {
    println!("| | shape | burn | kernel | burn, with backward | kernel, with backward |");
    println!("|---|---|---|---|---|---|");
    for shape in [[64, 96, 8, 8], [2, 320, 64, 64]] {
        row("SiLU", shape, activation::silu, silu);
    }
    for shape in [[64, 64, 384], [2, 4096, 1280]] {
        row("GELU", shape, activation::gelu, gelu);
    }
    for shape in [[64, 64, 768], [2, 4096, 2560]] {
        row("GEGLU", shape, plain_geglu, geglu);
    }
    for shape in [[64, 96, 8, 8], [2, 320, 64, 64]] {
        for with_silu in [false, true] {
            let name = if with_silu {
                "GroupNorm and SiLU"
            } else {
                "GroupNorm"
            };
            let ones = Tensor::<1>::ones([shape[1]], &Device::flex());
            let frozen = || (ones.clone(), ones.clone());
            row(
                name,
                shape,
                |x| {
                    let (weight, bias) = frozen();
                    plain_group_norm(x, weight, bias, with_silu)
                },
                |x| {
                    let (weight, bias) = frozen();
                    group_norm(x, weight, bias, 32, 1e-5, with_silu)
                },
            );
        }
    }
}
