//! The inner loops: tiles of output channels and positions whose sums stay in registers.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "fixed tiles of registers, whose bounds the compiler sees; an iterator would hide them"
)]

use pulp::Simd;

use super::layout::Run;

/// Output channels whose weights lie together.
pub(super) const BLOCK: usize = 8;

/// What the tiles of one block of output channels read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands<'a> {
    /// The packed source, by channel.
    pub(super) source: &'a [f32],
    /// Numbers of a channel of the source.
    pub(super) channel: usize,
    /// The offset of each tap in a channel.
    pub(super) offsets: &'a [usize],
    /// `[channel][tap][BLOCK]`.
    pub(super) weights: &'a [f32],
    pub(super) runs: &'a [Run],
    /// What the sums of each channel of the block start with. `None` has them go on from what they are.
    pub(super) start: Option<[f32; BLOCK]>,
}

/// Adds to `sums` (`[BLOCK][length]`) what the source contributes, at least to so many `channels` of the block.
#[inline(always)]
pub(super) fn block<S: Simd>(
    simd: S,
    operands: Operands<'_>,
    channels: usize,
    length: usize,
    sums: &mut [f32],
) {
    // With few registers a block takes two turns.
    if S::REGISTER_COUNT >= 32 && channels > BLOCK / 2 {
        row::<S, BLOCK>(simd, operands, 0, length, sums);
    } else {
        row::<S, { BLOCK / 2 }>(simd, operands, 0, length, sums);
        if channels > BLOCK / 2 {
            row::<S, { BLOCK / 2 }>(simd, operands, BLOCK / 2, length, sums);
        }
    }
}

/// The channels from `first` on at all positions.
#[inline(always)]
fn row<S: Simd, const CHANNELS: usize>(
    simd: S,
    operands: Operands<'_>,
    first: usize,
    length: usize,
    sums: &mut [f32],
) {
    for run in operands.runs {
        let mut at = 0;
        while at < run.sums {
            match (run.sums - at) / S::F32_LANES {
                0 | 1 => {
                    tile::<S, CHANNELS, 1>(simd, operands, run, first, at, length, sums);
                    at += S::F32_LANES;
                }
                2 | 4 => {
                    tile::<S, CHANNELS, 2>(simd, operands, run, first, at, length, sums);
                    at += 2 * S::F32_LANES;
                }
                _ => {
                    tile::<S, CHANNELS, 3>(simd, operands, run, first, at, length, sums);
                    at += 3 * S::F32_LANES;
                }
            }
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const CHANNELS: usize, const VECTORS: usize>(
    simd: S,
    operands: Operands<'_>,
    run: &Run,
    first: usize,
    at: usize,
    length: usize,
    sums: &mut [f32],
) {
    let mut tile = [[simd.splat_f32s(0.0); VECTORS]; CHANNELS];
    for c in 0..CHANNELS {
        if let Some(start) = operands.start {
            tile[c] = [simd.splat_f32s(start[first + c]); VECTORS];
        } else {
            let start = (first + c) * length + run.sum + at;
            let (sums, _) = S::as_simd_f32s(&sums[start..start + VECTORS * S::F32_LANES]);
            tile[c].copy_from_slice(&sums[..VECTORS]);
        }
    }
    let position = run.position + at;
    let offsets = &operands.offsets[run.taps.clone()];
    let (weights, _) = operands.weights.as_chunks::<BLOCK>();
    for (source, weights) in operands
        .source
        .chunks_exact(operands.channel)
        .zip(weights.chunks_exact(operands.offsets.len().max(1)))
    {
        for (&offset, weights) in offsets.iter().zip(&weights[run.taps.clone()]) {
            let start = offset + position;
            let (x, _) = S::as_simd_f32s(&source[start..start + VECTORS * S::F32_LANES]);
            for c in 0..CHANNELS {
                let weight = simd.splat_f32s(weights[first + c]);
                for v in 0..VECTORS {
                    tile[c][v] = simd.mul_add_e_f32s(weight, x[v], tile[c][v]);
                }
            }
        }
    }
    for c in 0..CHANNELS {
        let start = (first + c) * length + run.sum + at;
        let (sums, _) = S::as_mut_simd_f32s(&mut sums[start..start + VECTORS * S::F32_LANES]);
        sums[..VECTORS].copy_from_slice(&tile[c]);
    }
}
