//! Milliseconds of attention and of burn's own, forward and with all gradients, at the sizes of Stable Diffusion and of the
//! miniature. The two take turns, and a ratio is the median of those of neighbouring turns, so that other work on the machine
//! slows both.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Distribution, Tensor};
use selma_kernels::attention;

type Function = dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>;

/// The least milliseconds of both, and the median of the ratios.
fn compare(burn: impl Fn(), ours: impl Fn()) -> (f64, f64, f64) {
    let time = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e3
    };
    let begin = Instant::now();
    let mut turns = Vec::new();
    while begin.elapsed() < Duration::from_secs(3) || turns.len() < 5 {
        turns.push((time(&burn), time(&ours)));
    }
    let least = |of: fn(&(f64, f64)) -> f64| turns.iter().map(of).fold(f64::INFINITY, f64::min);
    let mut ratios: Vec<f64> = turns.iter().map(|(burn, ours)| burn / ours).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    (least(|turn| turn.0), least(|turn| turn.1), median)
}

/// Prints one row for queries `[batch, heads, queries, width]` and so many keys, which lie as projections leave them.
fn row(name: &str, [batch, heads, queries, width]: [usize; 4], keys: usize, gradients: bool) {
    let plain = |query, key, value| {
        let options = AttentionModuleOptions::default();
        burn_attention(query, key, value, None, None, options)
    };
    let functions: [&Function; 2] = [&plain, &attention];
    let device = Device::flex();
    let normal = Distribution::Normal(0.0, 1.0);
    let projected = |length| Tensor::<4>::random([batch, length, heads, width], normal, &device);
    let operands = [projected(queries), projected(keys), projected(keys)];
    let layer = |f: &Function, operands: &[Tensor<4>; 3]| {
        let [query, key, value] = operands.clone().map(|x| x.swap_dims(1, 2));
        f(query, key, value)
            .swap_dims(1, 2)
            .reshape([batch, queries, heads * width])
    };
    let forward = functions.map(|f| {
        let operands = operands.clone();
        move || {
            black_box(layer(f, &operands));
        }
    });
    let [burn, ours] = forward;
    let (burn, ours, ratio) = compare(burn, ours);
    let work = (4 * batch * heads * queries * keys * width) as f64 / 1e6;
    let speed = work / ours;
    let mut cells = format!("{burn:.2} / {ours:.2} = {ratio:.1} | {speed:.0}");
    if gradients {
        let device = device.autodiff();
        let operands =
            operands.map(|x| Tensor::<4>::from_data(x.into_data(), &device).require_grad());
        let [burn, ours] = functions.map(|f| {
            let operands = operands.clone();
            move || {
                black_box(layer(f, &operands).backward());
            }
        });
        let (burn, ours, ratio) = compare(burn, ours);
        cells += &format!(" | {burn:.2} / {ours:.2} = {ratio:.1}");
    } else {
        cells += " | ";
    }
    println!("| {name} | [{batch}, {heads}, {queries}, {width}] | {keys} | {cells} |");
}

fn main() {
    println!("| | queries | keys | forward, burn / kernel | GFLOP/s | with all gradients |");
    println!("|---|---|---|---|---|---|");
    for (name, shape, keys, gradients) in [
        ("SD 1, 64x64", [2, 8, 4096, 40], 4096, false),
        ("to the text", [2, 8, 4096, 40], 77, true),
        ("SD 1, 32x32", [2, 8, 1024, 80], 1024, true),
        ("to the text", [2, 8, 1024, 80], 77, true),
        ("SD 1, 16x16", [2, 8, 256, 160], 256, true),
        ("to the text", [2, 8, 256, 160], 77, true),
        ("SD 1, 8x8", [2, 8, 64, 160], 64, true),
        ("SD 2, 64x64", [2, 5, 4096, 64], 4096, false),
        ("VAE, 64x64", [1, 1, 4096, 512], 4096, false),
        ("mini, 8x8", [16, 4, 64, 16], 64, true),
        ("to the text", [16, 4, 64, 16], 48, true),
        ("mini, 4x4", [16, 4, 16, 32], 16, true),
        ("to the text", [16, 4, 16, 32], 48, true),
        ("mini VAE", [16, 1, 64, 64], 64, true),
    ] {
        row(name, shape, keys, gradients);
    }
}
