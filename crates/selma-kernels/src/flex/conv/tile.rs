//! The inner loops: tiles of output channels and positions whose sums stay in registers.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "fixed tiles of registers, whose bounds the compiler sees; an iterator would hide them"
)]

use pulp::Simd;

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
    /// The bias of each channel of the block.
    pub(super) bias: [f32; BLOCK],
}

/// Writes `channels` (at most [`BLOCK`]) rows of `padded` numbers to `out`: the sums at each position.
#[inline(always)]
pub(super) fn block<S: Simd>(
    simd: S,
    operands: Operands<'_>,
    channels: usize,
    padded: usize,
    out: &mut [f32],
) {
    // With few registers a block takes two turns.
    if S::REGISTER_COUNT >= 32 && channels > BLOCK / 2 {
        row::<S, BLOCK>(simd, operands, 0, padded, out);
    } else {
        row::<S, { BLOCK / 2 }>(simd, operands, 0, padded, out);
        if channels > BLOCK / 2 {
            row::<S, { BLOCK / 2 }>(simd, operands, BLOCK / 2, padded, out);
        }
    }
}

/// The channels from `first` on at all positions.
#[inline(always)]
fn row<S: Simd, const CHANNELS: usize>(
    simd: S,
    operands: Operands<'_>,
    first: usize,
    padded: usize,
    out: &mut [f32],
) {
    let mut at = 0;
    while at < padded {
        match (padded - at) / S::F32_LANES {
            0 | 1 => {
                tile::<S, CHANNELS, 1>(simd, operands, first, at, padded, out);
                at += S::F32_LANES;
            }
            2 | 4 => {
                tile::<S, CHANNELS, 2>(simd, operands, first, at, padded, out);
                at += 2 * S::F32_LANES;
            }
            _ => {
                tile::<S, CHANNELS, 3>(simd, operands, first, at, padded, out);
                at += 3 * S::F32_LANES;
            }
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const CHANNELS: usize, const VECTORS: usize>(
    simd: S,
    operands: Operands<'_>,
    first: usize,
    at: usize,
    padded: usize,
    out: &mut [f32],
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; CHANNELS];
    for c in 0..CHANNELS {
        sums[c] = [simd.splat_f32s(operands.bias[first + c]); VECTORS];
    }
    let taps = operands.offsets.len();
    let (weights, _) = operands.weights.as_chunks::<BLOCK>();
    for (source, weights) in operands
        .source
        .chunks_exact(operands.channel)
        .zip(weights.chunks_exact(taps.max(1)))
    {
        for (&offset, weights) in operands.offsets.iter().zip(weights) {
            let start = offset + at;
            let (x, _) = S::as_simd_f32s(&source[start..start + VECTORS * S::F32_LANES]);
            for c in 0..CHANNELS {
                let weight = simd.splat_f32s(weights[first + c]);
                for v in 0..VECTORS {
                    sums[c][v] = simd.mul_add_e_f32s(weight, x[v], sums[c][v]);
                }
            }
        }
    }
    for c in 0..CHANNELS {
        let start = (first + c) * padded + at;
        let out = &mut out[start..start + VECTORS * S::F32_LANES];
        let (out, _) = S::as_mut_simd_f32s(out);
        out[..VECTORS].copy_from_slice(&sums[c]);
    }
}

/// Adds to `sums: [channels][taps]` the sums over all positions of `outputs` (`[channels][padded]`) times `source` at
/// each of the places `taps`.
#[inline(always)]
pub(super) fn correlate<S: Simd>(
    simd: S,
    outputs: &[f32],
    padded: usize,
    source: &[f32],
    taps: &[usize],
    sums: &mut [f32],
) {
    let mut at = 0;
    while at < outputs.len() / padded {
        let channels = outputs.len() / padded - at;
        let outputs = &outputs[at * padded..];
        let sums = &mut sums[at * taps.len()..];
        if channels >= 4 {
            columns::<S, 4>(simd, outputs, padded, source, taps, sums);
            at += 4;
        } else {
            columns::<S, 1>(simd, outputs, padded, source, taps, sums);
            at += 1;
        }
    }
}

#[inline(always)]
fn columns<S: Simd, const CHANNELS: usize>(
    simd: S,
    outputs: &[f32],
    padded: usize,
    source: &[f32],
    taps: &[usize],
    sums: &mut [f32],
) {
    let mut at = 0;
    while at < taps.len() {
        let left = taps.len() - at;
        if left >= 6 && S::REGISTER_COUNT >= 32 {
            dots::<S, CHANNELS, 6>(simd, outputs, padded, source, taps, at, sums);
            at += 6;
        } else if left >= 3 {
            dots::<S, CHANNELS, 3>(simd, outputs, padded, source, taps, at, sums);
            at += 3;
        } else {
            dots::<S, CHANNELS, 1>(simd, outputs, padded, source, taps, at, sums);
            at += 1;
        }
    }
}

#[inline(always)]
fn dots<S: Simd, const CHANNELS: usize, const TAPS: usize>(
    simd: S,
    outputs: &[f32],
    padded: usize,
    source: &[f32],
    taps: &[usize],
    first: usize,
    sums: &mut [f32],
) {
    let mut partial = [[simd.splat_f32s(0.0); TAPS]; CHANNELS];
    let vectors = padded / S::F32_LANES;
    let mut g: [&[S::f32s]; CHANNELS] = [&[]; CHANNELS];
    for c in 0..CHANNELS {
        g[c] = &S::as_simd_f32s(&outputs[c * padded..(c + 1) * padded]).0[..vectors];
    }
    let mut x: [&[S::f32s]; TAPS] = [&[]; TAPS];
    for t in 0..TAPS {
        let start = taps[first + t];
        x[t] = &S::as_simd_f32s(&source[start..start + padded]).0[..vectors];
    }
    for v in 0..vectors {
        let mut now = [simd.splat_f32s(0.0); TAPS];
        for t in 0..TAPS {
            now[t] = x[t][v];
        }
        for c in 0..CHANNELS {
            let g = g[c][v];
            for t in 0..TAPS {
                partial[c][t] = simd.mul_add_e_f32s(g, now[t], partial[c][t]);
            }
        }
    }
    for c in 0..CHANNELS {
        for t in 0..TAPS {
            sums[c * taps.len() + first + t] += simd.reduce_sum_f32s(partial[c][t]);
        }
    }
}
