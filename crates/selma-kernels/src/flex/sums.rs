//! Sums in many partial sums: `f32` within a run of numbers, `f64` over the runs.
//!
//! The order of additions depends on the length alone, so neither the CPU nor the number of threads changes a bit.

use super::math::{Map1, Map2};

/// Partial sums: two vectors of the widest instruction set.
const LANES: usize = 32;

/// Numbers summed in `f32`: 64 in each partial sum.
const RUN: usize = 64 * LANES;

/// The sum of `f` over `x`.
#[inline(always)]
pub(crate) fn sum<F: Map1>(x: &[f32], f: F) -> f64 {
    let mut total = 0.0;
    for run in x.chunks(RUN) {
        let mut partial = [0.0_f32; LANES];
        let (whole, rest) = run.as_chunks::<LANES>();
        for x in whole {
            for (sum, &x) in partial.iter_mut().zip(x) {
                *sum += f.apply(x);
            }
        }
        for (sum, &x) in partial.iter_mut().zip(rest) {
            *sum += f.apply(x);
        }
        total += fold(partial);
    }
    total
}

/// The sums over `x` and `dy` of `f(x, dy)` and of `f(x, dy) * (x - mean)`.
#[inline(always)]
pub(crate) fn sum_pair<F: Map2>(x: &[f32], dy: &[f32], mean: f32, f: F) -> (f64, f64) {
    let (mut total, mut total_deviation) = (0.0, 0.0);
    for (x, dy) in x.chunks(RUN).zip(dy.chunks(RUN)) {
        let mut plain = [0.0_f32; LANES];
        let mut deviation = [0.0_f32; LANES];
        let (whole_x, rest_x) = x.as_chunks::<LANES>();
        let (whole_dy, rest_dy) = dy.as_chunks::<LANES>();
        for (x, dy) in whole_x.iter().zip(whole_dy) {
            for (((plain, deviation), &x), &dy) in
                plain.iter_mut().zip(&mut deviation).zip(x).zip(dy)
            {
                let v = f.apply(x, dy);
                *plain += v;
                *deviation += v * (x - mean);
            }
        }
        for (((plain, deviation), &x), &dy) in plain
            .iter_mut()
            .zip(&mut deviation)
            .zip(rest_x)
            .zip(rest_dy)
        {
            let v = f.apply(x, dy);
            *plain += v;
            *deviation += v * (x - mean);
        }
        total += fold(plain);
        total_deviation += fold(deviation);
    }
    (total, total_deviation)
}

/// The sum of the partial sums.
#[inline(always)]
fn fold(partial: [f32; LANES]) -> f64 {
    partial.iter().copied().map(f64::from).sum()
}
