//! The inner loops: products whose sums stay in registers, eight rows and up to three vectors at a time.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "fixed tiles of registers, whose bounds the compiler sees; an iterator would hide them"
)]

use pulp::Simd;

/// Rows of a product that are computed together.
pub(super) const GROUP: usize = 8;

/// What the sums start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Zero.
    Zero,
    /// What they are.
    Sums,
}

/// `sums[r][w] += Σ_k left[k][r] right[k][w]`, where each row of `left` has `stride` numbers, of which the first
/// [`GROUP`] count, each row of `right` has `width`, and `sums` is `[GROUP][width]`.
#[inline(always)]
pub(super) fn interleaved<S: Simd>(
    simd: S,
    (left, stride): (&[f32], usize),
    right: &[f32],
    width: usize,
    sums: &mut [f32],
    start: Start,
) {
    let left = |first| Interleaved {
        numbers: left,
        stride,
        first,
    };
    if S::REGISTER_COUNT >= 32 {
        sweep::<S, _, GROUP>(simd, left(0), right, width, sums, start);
    } else {
        let (upper, lower) = sums.split_at_mut(GROUP / 2 * width);
        sweep::<S, _, { GROUP / 2 }>(simd, left(0), right, width, upper, start);
        sweep::<S, _, { GROUP / 2 }>(simd, left(GROUP / 2), right, width, lower, start);
    }
}

/// `sums[r][w] += Σ_k left[r][k] right[k][w]`, where each of the [`GROUP`] rows of `left` has `length` numbers, each row of
/// `right` has `width`, and `sums` is `[GROUP][width]`.
#[inline(always)]
pub(super) fn by_rows<S: Simd>(
    simd: S,
    (left, length): (&[f32], usize),
    right: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    if S::REGISTER_COUNT >= 32 {
        let rows = Rows::<GROUP>::new(left, length, 0);
        sweep::<S, _, GROUP>(simd, rows, right, width, sums, Start::Sums);
    } else {
        let (upper, lower) = sums.split_at_mut(GROUP / 2 * width);
        let rows = Rows::<{ GROUP / 2 }>::new(left, length, 0);
        sweep::<S, _, { GROUP / 2 }>(simd, rows, right, width, upper, Start::Sums);
        let rows = Rows::<{ GROUP / 2 }>::new(left, length, GROUP / 2);
        sweep::<S, _, { GROUP / 2 }>(simd, rows, right, width, lower, Start::Sums);
    }
}

/// The left factor: `R` numbers for each `k`.
trait Left<const R: usize>: Copy {
    fn at(&self, k: usize) -> [f32; R];
}

/// Those that belong to one `k` lie together.
#[derive(Clone, Copy)]
struct Interleaved<'a> {
    numbers: &'a [f32],
    stride: usize,
    first: usize,
}

impl<const R: usize> Left<R> for Interleaved<'_> {
    #[inline(always)]
    fn at(&self, k: usize) -> [f32; R] {
        let start = k * self.stride + self.first;
        let numbers = &self.numbers[start..start + R];
        let mut values = [0.0; R];
        values.copy_from_slice(numbers);
        values
    }
}

/// Those that belong to one row lie together.
#[derive(Clone, Copy)]
struct Rows<'a, const R: usize> {
    rows: [&'a [f32]; R],
}

impl<'a, const R: usize> Rows<'a, R> {
    #[inline(always)]
    fn new(numbers: &'a [f32], length: usize, first: usize) -> Self {
        let mut rows: [&[f32]; R] = [&[]; R];
        for r in 0..R {
            let start = (first + r) * length;
            rows[r] = &numbers[start..start + length];
        }
        Self { rows }
    }
}

impl<const R: usize> Left<R> for Rows<'_, R> {
    #[inline(always)]
    fn at(&self, k: usize) -> [f32; R] {
        let mut values = [0.0; R];
        for r in 0..R {
            values[r] = self.rows[r][k];
        }
        values
    }
}

/// All columns of `R` rows.
#[inline(always)]
fn sweep<S: Simd, L: Left<R>, const R: usize>(
    simd: S,
    left: L,
    right: &[f32],
    width: usize,
    sums: &mut [f32],
    start: Start,
) {
    let mut at = 0;
    while at < width {
        match (width - at) / S::F32_LANES {
            0 | 1 => {
                tile::<S, L, R, 1>(simd, left, right, width, at, sums, start);
                at += S::F32_LANES;
            }
            2 | 4 => {
                tile::<S, L, R, 2>(simd, left, right, width, at, sums, start);
                at += 2 * S::F32_LANES;
            }
            _ => {
                tile::<S, L, R, 3>(simd, left, right, width, at, sums, start);
                at += 3 * S::F32_LANES;
            }
        }
    }
}

#[inline(always)]
fn tile<S: Simd, L: Left<R>, const R: usize, const VECTORS: usize>(
    simd: S,
    left: L,
    right: &[f32],
    width: usize,
    at: usize,
    sums: &mut [f32],
    start: Start,
) {
    let mut tile = [[simd.splat_f32s(0.0); VECTORS]; R];
    if start == Start::Sums {
        for r in 0..R {
            let start = r * width + at;
            let (sums, _) = S::as_simd_f32s(&sums[start..start + VECTORS * S::F32_LANES]);
            tile[r].copy_from_slice(&sums[..VECTORS]);
        }
    }
    for (k, right) in right.chunks_exact(width).enumerate() {
        let (x, _) = S::as_simd_f32s(&right[at..at + VECTORS * S::F32_LANES]);
        let left = left.at(k);
        for r in 0..R {
            let left = simd.splat_f32s(left[r]);
            for v in 0..VECTORS {
                tile[r][v] = simd.mul_add_e_f32s(left, x[v], tile[r][v]);
            }
        }
    }
    for r in 0..R {
        let start = r * width + at;
        let (sums, _) = S::as_mut_simd_f32s(&mut sums[start..start + VECTORS * S::F32_LANES]);
        sums[..VECTORS].copy_from_slice(&tile[r]);
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Both<'a> {
        width: usize,
        length: usize,
        sums: [&'a mut [f32]; 2],
    }

    fn left(k: usize, r: usize) -> f32 {
        ((k * 7 + r * 3) % 11) as f32 - 5.0
    }

    fn right(k: usize, w: usize) -> f32 {
        ((k * 5 + w) % 13) as f32 - 6.0
    }

    impl WithSimd for Both<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            let Self {
                width,
                length,
                sums: [first, second],
            } = self;
            let stride = GROUP + 1;
            let mut numbers = vec![f32::NAN; length * stride];
            let mut rows = vec![0.0; GROUP * length];
            for k in 0..length {
                for r in 0..GROUP {
                    numbers[k * stride + r] = left(k, r);
                    rows[r * length + k] = left(k, r);
                }
            }
            let right: Vec<f32> = (0..length * width)
                .map(|i| right(i / width, i % width))
                .collect();
            interleaved(simd, (&numbers, stride), &right, width, first, Start::Zero);
            interleaved(simd, (&numbers, stride), &right, width, first, Start::Sums);
            by_rows(simd, (&rows, length), &right, width, second);
        }
    }

    #[test]
    fn products_of_all_widths() {
        for (width, length) in [(16, 1), (32, 5), (48, 40), (64, 3), (80, 7), (512, 2)] {
            let mut twice = vec![f32::NAN; GROUP * width];
            let mut once = vec![1.0; GROUP * width];
            Arch::new().dispatch(Both {
                width,
                length,
                sums: [&mut twice, &mut once],
            });
            for r in 0..GROUP {
                for w in 0..width {
                    let expected: f32 = (0..length).map(|k| left(k, r) * right(k, w)).sum();
                    assert_eq!(twice[r * width + w], 2.0 * expected);
                    assert_eq!(once[r * width + w], 1.0 + expected);
                }
            }
        }
    }
}
