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
enum Start {
    /// Zero.
    Zero,
    /// What they are.
    Sums,
}

/// `sums[r][w] = Σ_k left[r][k] right[k][w]`, where `left` is packed in groups of rows, `[group][k][GROUP]`, each row of `right`
/// and `sums` has `width` numbers, and `sums` has as many rows as `left` or more.
#[inline(always)]
pub(super) fn by_groups<S: Simd>(
    simd: S,
    left: &[f32],
    right: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    let group = right.len() / width * GROUP;
    let sums = sums.chunks_exact_mut(GROUP * width);
    for (left, sums) in left.chunks_exact(group).zip(sums) {
        interleaved(simd, (left, GROUP), right, width, sums, Start::Zero);
    }
}

/// `sums[c][w] += Σ_k left[k][c] right[k][w]`, where each row of `left` has `stride` numbers, whole groups, and so many rows has
/// `sums`; each row of `right` and `sums` has `width` numbers.
#[inline(always)]
pub(super) fn by_columns<S: Simd>(
    simd: S,
    (left, stride): (&[f32], usize),
    right: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    for (group, sums) in sums.chunks_exact_mut(GROUP * width).enumerate() {
        let left = &left[group * GROUP..];
        interleaved(simd, (left, stride), right, width, sums, Start::Sums);
    }
}

/// `sums[r][w] += Σ_k left[r][k] right[k][w]`, where `left` has whole groups of rows of `length` numbers, and each row of `right`
/// and `sums` has `width`.
#[inline(always)]
pub(super) fn by_rows<S: Simd>(
    simd: S,
    (left, length): (&[f32], usize),
    right: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    let groups = left.chunks_exact(GROUP * length);
    for (left, sums) in groups.zip(sums.chunks_exact_mut(GROUP * width)) {
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
}

/// One group of rows: those of `left` that belong to one `k` are the first [`GROUP`] of `stride` numbers.
#[inline(always)]
fn interleaved<S: Simd>(
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

    /// Two groups of rows.
    const ROWS: usize = 2 * GROUP;

    /// The three products of the same factors, which are packed in three ways.
    struct All<'a> {
        width: usize,
        length: usize,
        sums: [&'a mut [f32]; 3],
    }

    fn left(r: usize, k: usize) -> f32 {
        ((k * 7 + r * 3) % 11) as f32 - 5.0
    }

    fn right(k: usize, w: usize) -> f32 {
        ((k * 5 + w) % 13) as f32 - 6.0
    }

    impl WithSimd for All<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            let Self {
                width,
                length,
                sums: [first, second, third],
            } = self;
            let mut groups = vec![0.0; ROWS * length];
            let mut columns = vec![0.0; length * ROWS];
            let mut rows = vec![0.0; ROWS * length];
            for r in 0..ROWS {
                for k in 0..length {
                    groups[(r / GROUP * length + k) * GROUP + r % GROUP] = left(r, k);
                    columns[k * ROWS + r] = left(r, k);
                    rows[r * length + k] = left(r, k);
                }
            }
            let right = |i| right(i / width, i % width);
            let right: Vec<f32> = (0..length * width).map(right).collect();
            by_groups(simd, &groups, &right, width, first);
            by_columns(simd, (&columns, ROWS), &right, width, second);
            by_rows(simd, (&rows, length), &right, width, third);
        }
    }

    #[test]
    fn products_of_all_widths_and_packings() {
        for (width, length) in [(16, 1), (32, 5), (48, 40), (64, 3), (80, 7), (512, 2)] {
            let mut set = vec![f32::NAN; ROWS * width];
            let mut added = [vec![1.0; ROWS * width], vec![1.0; ROWS * width]];
            let [second, third] = &mut added;
            Arch::new().dispatch(All {
                width,
                length,
                sums: [&mut set, second, third],
            });
            for (i, &set) in set.iter().enumerate() {
                let (r, w) = (i / width, i % width);
                let expected: f32 = (0..length).map(|k| left(r, k) * right(k, w)).sum();
                assert_eq!(set, expected);
                assert_eq!([added[0][i], added[1][i]], [1.0 + expected; 2]);
            }
        }
    }
}
