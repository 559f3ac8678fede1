//! The inner loops of the gradient of the weight: sums over positions, some channels and taps at a time in registers.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "fixed tiles of registers, whose bounds the compiler sees; an iterator would hide them"
)]

use pulp::Simd;

/// What is multiplied and summed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands<'a> {
    /// The gradient of the output by position: `[channels][positions]`.
    pub(super) outputs: &'a [f32],
    /// Positions in whole vectors.
    pub(super) positions: usize,
    /// The packed source.
    pub(super) source: &'a [f32],
    /// The place of the source that each tap sees from the first position.
    pub(super) taps: &'a [usize],
}

/// Adds the sums over all positions of each channel times each tap to `sums`, where a channel has `row` numbers and its
/// taps are those from `first` on.
#[inline(always)]
pub(super) fn correlate<S: Simd>(
    simd: S,
    operands: Operands<'_>,
    sums: &mut [f32],
    row: usize,
    first: usize,
) {
    let fours = operands.outputs.chunks(4 * operands.positions);
    for (outputs, sums) in fours.zip(sums.chunks_mut(4 * row)) {
        let operands = Operands {
            outputs,
            ..operands
        };
        if outputs.len() == 4 * operands.positions {
            columns::<S, 4>(simd, operands, sums, row, first);
        } else {
            let ones = outputs.chunks_exact(operands.positions);
            for (outputs, sums) in ones.zip(sums.chunks_mut(row)) {
                let operands = Operands {
                    outputs,
                    ..operands
                };
                columns::<S, 1>(simd, operands, sums, row, first);
            }
        }
    }
}

/// Some channels with all taps.
#[inline(always)]
fn columns<S: Simd, const CHANNELS: usize>(
    simd: S,
    operands: Operands<'_>,
    sums: &mut [f32],
    row: usize,
    first: usize,
) {
    let mut at = 0;
    while at < operands.taps.len() {
        let left = operands.taps.len() - at;
        let operands = Operands {
            taps: &operands.taps[at..],
            ..operands
        };
        let first = first + at;
        if left >= 6 && S::REGISTER_COUNT >= 32 {
            dots::<S, CHANNELS, 6>(simd, operands, sums, row, first);
            at += 6;
        } else if left >= 3 {
            dots::<S, CHANNELS, 3>(simd, operands, sums, row, first);
            at += 3;
        } else {
            dots::<S, CHANNELS, 1>(simd, operands, sums, row, first);
            at += 1;
        }
    }
}

/// Some channels with some taps.
#[inline(always)]
fn dots<S: Simd, const CHANNELS: usize, const TAPS: usize>(
    simd: S,
    operands: Operands<'_>,
    sums: &mut [f32],
    row: usize,
    first: usize,
) {
    let positions = operands.positions;
    let vectors = positions / S::F32_LANES;
    let mut outputs: [&[S::f32s]; CHANNELS] = [&[]; CHANNELS];
    for c in 0..CHANNELS {
        let output = &operands.outputs[c * positions..(c + 1) * positions];
        outputs[c] = &S::as_simd_f32s(output).0[..vectors];
    }
    let mut source: [&[S::f32s]; TAPS] = [&[]; TAPS];
    for t in 0..TAPS {
        let start = operands.taps[t];
        let numbers = &operands.source[start..start + positions];
        source[t] = &S::as_simd_f32s(numbers).0[..vectors];
    }
    let mut tile = [[simd.splat_f32s(0.0); TAPS]; CHANNELS];
    for v in 0..vectors {
        let mut x = [simd.splat_f32s(0.0); TAPS];
        for t in 0..TAPS {
            x[t] = source[t][v];
        }
        for c in 0..CHANNELS {
            let output = outputs[c][v];
            for t in 0..TAPS {
                tile[c][t] = simd.mul_add_e_f32s(output, x[t], tile[c][t]);
            }
        }
    }
    for c in 0..CHANNELS {
        for t in 0..TAPS {
            sums[c * row + first + t] += simd.reduce_sum_f32s(tile[c][t]);
        }
    }
}
