//! Truncated singular value decompositions by the eigenvectors of a Gram matrix.
//!
//! Where a product is truncated, all but a few of its singular vectors are thrown away. A Gram matrix has
//! the same vectors and is cheap to form, and the [`leading`] ones can be had alone; only the
//! singular values come out squared, so that those below 1e-8 of the largest are lost in rounding. That does
//! not matter here: the vectors are made orthonormal and the product itself is projected on them, so that
//! what an error in them costs is its square.
//!
//! In `f32` products of matrices take half as long. What that costs depends on how near the last singular value that is
//! kept is to the first that is not, which is known then: see [`is_certain`].

use std::ops::Range;

use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::{
        matmul::{
            matmul as multiply,
            triangular::{BlockStructure, matmul},
        },
        triangular_solve::solve_lower_triangular_in_place,
    },
};

use crate::{
    eigen::{Leading, leading},
    number::{NEGLIGIBLE, Number, cast},
    truncated::Truncated,
};

/// The smallest size that is worth it. Below, a full decomposition takes under a millisecond.
const LEAST_SIZE: usize = 64;

/// The smallest size at which `f32` is worth a second try in `f64` where it is not certain.
const LEAST_SINGLE: usize = 256;

/// Factors whose product is this much smaller than they are, in squares, cancel each other. Their Gram matrices know
/// the product to 1e-16 of their own size: to 1e-9 of its size at least. That of random factors is 1e-5.
const CANCELLED: f64 = 1e-7;

/// What rounding puts between two eigenvectors of a Gram matrix in `f32`, relative to its largest eigenvalue.
const NOISE: f64 = 2e-8;

/// How far what is kept may be off where `f32` is taken, relative to it.
const UNCERTAIN: f64 = 5e-6;

/// Between which the trace of a Gram matrix in `f32` has to be, so that products of two of them are far from where numbers end.
const IN_RANGE: Range<f64> = 1e-12..1e18;

/// True when truncating to `k` a product whose smallest dimension is `size` is faster this way.
pub(crate) fn pays(size: usize, k: usize) -> bool {
    size >= LEAST_SIZE && k < size
}

/// True when a product of rank `r` is better multiplied first, given its smaller side.
pub(crate) fn is_large(r: usize, size: usize) -> bool {
    // Measured with faer 0.24 on 320x320 and 640x640: the routes meet at 0.75 to 0.8 of the size.
    4 * r >= 3 * size
}

/// True when [`by_factors`] is faster than multiplying `[m, r]` by `[r, n]` first, by the
/// multiplications that each of them takes.
fn product_pays(m: usize, n: usize, r: usize, k: usize) -> bool {
    let (long, short) = (m.max(n), m.min(n));
    // Measured at 640 rows: in the time that the eigenvectors take, a product of matrices has done as many.
    let eigenvectors = |size: usize| 2 * size * size * size;
    let product = (m + n) * r * (r / 2 + k) + r * r * (r + 2 * k) + eigenvectors(r);
    let dense = m * n * (r + k) + long * short * short / 2 + eigenvectors(short);
    r <= long && product < dense
}

/// True when [`truncate_product_in`] should be tried in `f32` first, for a product of `[m, r]` and `[r, n]` that is truncated to `k`.
pub(crate) fn single_pays(m: usize, n: usize, r: usize, k: usize) -> bool {
    let size = m.min(n).min(r);
    size >= LEAST_SINGLE && k < size
}

/// Truncates the product of `b^T [r, m]` and `a^T [n, r]`. `None` where a full decomposition is faster, or copes with what this does not; in `f32` also
/// where that is not certain.
pub(crate) fn truncate_product_in<T: Number>(
    b_turned: MatRef<'_, T>,
    a_turned: MatRef<'_, T>,
    k: usize,
) -> Option<Truncated<T>> {
    let (m, n, r) = (b_turned.ncols(), a_turned.nrows(), a_turned.ncols());
    let is_large = is_large(r, m.min(n));
    if pays(r, k)
        && (!is_large || product_pays(m, n, r, k))
        && let Some(cut) = by_factors(b_turned.transpose(), a_turned, k)
    {
        return Some(cut);
    }
    if !is_large || !pays(m.min(n), k) {
        return None;
    }
    let product = a_turned * b_turned;
    if T::SINGLE {
        // What random factors have; below it they cancel each other.
        let sizes = [a_turned, b_turned, product.as_ref()];
        let [a_size, b_size, size] = sizes.map(|x| x.squared_norm_l2().wide());
        if size * (r as f64) < 0.1 * a_size * b_size {
            return None;
        }
    }
    by_entries(product.transpose(), k)
}

/// Truncates a dense `[m, n]`, in `f32` where that is certain; `None` when it is small, zero or not finite.
pub(crate) fn truncate_dense(dense: MatRef<'_, f64>, k: usize) -> Option<Truncated> {
    let least = dense.nrows().min(dense.ncols());
    if !pays(least, k) {
        return None;
    }
    if least >= LEAST_SINGLE
        && let Some(cut) = by_entries::<f32>(cast(dense).as_ref(), k)
    {
        return Some(cut.widened());
    }
    by_entries(dense, k)
}

/// Truncates `b [m, r] a^T [r, n]` with `r` at most the larger of `m` and `n`. `None` when the columns of the longer factor
/// are linearly dependent to the last digit, when the factors cancel each other, or numbers are not finite, which a full
/// decomposition copes with.
///
/// With the Cholesky decomposition `long^T long = L L^T` of the longer factor, `short L` has the singular values of the
/// product and its vectors on the side of `short`. All that is done with them is done in `r` dimensions: the
/// factors themselves are multiplied once, at the end.
fn by_factors<T: Number>(b: MatRef<'_, T>, a: MatRef<'_, T>, k: usize) -> Option<Truncated<T>> {
    let b_is_longer = b.nrows() >= a.nrows();
    let (long, short) = if b_is_longer { (b, a) } else { (a, b) };
    let r = long.ncols();
    let mut inner = gram(long);
    let largest = inner.diagonal().column_vector().norm_max();
    let energy = trace(inner.as_ref());
    // Dependent columns leave zeros or, by rounding, less.
    for value in inner.diagonal_mut().column_vector_mut().iter_mut() {
        *value += T::of(T::LIFT) * largest;
    }
    let root = inner.llt(Side::Lower).ok()?;
    let other = mirrored(gram(short));
    let energies = [energy, trace(other.as_ref())];
    if T::SINGLE && !energies.iter().all(|energy| IN_RANGE.contains(energy)) {
        return None;
    }
    let half = times(
        other.as_ref(),
        BlockStructure::Rectangular,
        root.L(),
        BlockStructure::TriangularLower,
    );
    // (short L)^T (short L), the lower half
    let mut core = Mat::zeros(half.nrows(), half.ncols());
    matmul(
        core.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        root.L().transpose(),
        BlockStructure::TriangularUpper,
        half.as_ref(),
        BlockStructure::Rectangular,
        T::of(1.0),
        Par::Seq,
    );
    let size = if T::SINGLE {
        let inner = spectral_size(|x| root.L() * (root.L().transpose() * x), r);
        inner * spectral_size(|x| &other * x, r)
    } else {
        0.0
    };
    let kept = Kept::new(core.as_ref(), k, size)?;
    if kept.values.first()?.powi(2) < CANCELLED * energies.iter().product::<f64>() {
        return None;
    }
    let vectors = kept.vectors.as_ref();
    // `short basis` has orthonormal columns, and the product takes them to `long image`.
    let mut basis = times(
        root.L(),
        BlockStructure::TriangularLower,
        vectors,
        BlockStructure::Rectangular,
    );
    let mut image = &other * &basis;
    let lengths = (basis.transpose() * &image).llt(Side::Lower).ok()?;
    for side in [&mut basis, &mut image] {
        solve_lower_triangular_in_place(lengths.L(), side.transpose_mut(), Par::Seq);
    }
    kept.share(&mut basis, &mut image);
    let rank = vectors.ncols();
    let mut a_turned = Mat::zeros(a.nrows(), k);
    let mut b_turned = Mat::zeros(k, b.nrows());
    let (for_b, for_a) = if b_is_longer {
        (image, basis)
    } else {
        (basis, image)
    };
    let a_kept = a_turned.subcols_mut(0, rank);
    multiply(a_kept, Accum::Replace, a, for_a, T::of(1.0), Par::Seq);
    let (b_kept, for_b) = (b_turned.subrows_mut(0, rank), for_b.transpose());
    multiply(
        b_kept,
        Accum::Replace,
        for_b,
        b.transpose(),
        T::of(1.0),
        Par::Seq,
    );
    Some(kept.truncated(b_turned, a_turned))
}

fn by_entries<T: Number>(dense: MatRef<'_, T>, k: usize) -> Option<Truncated<T>> {
    // The vectors on the shorter side.
    let wide = dense.nrows() < dense.ncols();
    let tall = if wide { dense.transpose() } else { dense };
    let kept = Kept::new(gram(tall).as_ref(), k, 0.0)?;
    let rank = kept.vectors.ncols();
    let mut basis = Mat::zeros(tall.ncols(), k);
    basis.subcols_mut(0, rank).copy_from(&kept.vectors);
    let mut image = basis.clone();
    kept.share(&mut basis, &mut image);
    Some(if wide {
        kept.truncated(basis.transpose().to_owned(), tall * image)
    } else {
        kept.truncated(image.transpose() * tall.transpose(), basis)
    })
}

/// The lower half of `matrix^T matrix`; above the diagonal are zeros.
pub(crate) fn gram<T: Number>(matrix: MatRef<'_, T>) -> Mat<T> {
    let mut product = Mat::zeros(matrix.ncols(), matrix.ncols());
    matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        matrix.transpose(),
        BlockStructure::Rectangular,
        matrix,
        BlockStructure::Rectangular,
        T::of(1.0),
        Par::Seq,
    );
    product
}

/// The largest eigenvalue of a matrix of `n` rows that has no negative ones, from below and to a few percent (power iteration).
fn spectral_size<T: Number>(times: impl Fn(&Mat<T>) -> Mat<T>, n: usize) -> f64 {
    // No vector that a matrix would have by itself, and the same on every run.
    let mut x = Mat::from_fn(n, 1, |i, _| T::of(1.0 + ((i * 7919) % 17) as f64));
    let mut length = 0.0;
    for _ in 0..8 {
        let before = x.norm_l2();
        x *= faer::Scale(T::of(1.0) / before);
        x = times(&x);
        length = x.norm_l2().wide();
    }
    length
}

fn trace<T: Number>(matrix: MatRef<'_, T>) -> f64 {
    let diagonal = matrix.diagonal().column_vector();
    diagonal.iter().map(|x| x.wide()).sum()
}

/// A symmetric matrix of which the lower half is given.
pub(crate) fn mirrored<T: Number>(mut lower: Mat<T>) -> Mat<T> {
    // In blocks that stay in the cache: a row of a large matrix has every number in a line of its own.
    const BLOCK: usize = 32;
    let n = lower.nrows();
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let (left, mut right) = lower.as_mut().split_at_col_mut(start);
        for above in (0..start).step_by(BLOCK) {
            let block = left.as_ref().submatrix(start, above, width, BLOCK);
            let mut to = right.as_mut().submatrix_mut(above, 0, BLOCK, width);
            to.copy_from(block.transpose());
        }
        let mut diagonal = right.submatrix_mut(start, 0, width, width);
        for j in 1..width {
            let (left, right) = diagonal.as_mut().split_at_col_mut(j);
            let row = left.row(j).transpose();
            right.col_mut(0).subrows_mut(0, j).copy_from(row);
        }
    }
    lower
}

/// A product of matrices of which one is triangular.
fn times<T: Number>(
    left: MatRef<'_, T>,
    left_is: BlockStructure,
    right: MatRef<'_, T>,
    right_is: BlockStructure,
) -> Mat<T> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(
        product.as_mut(),
        BlockStructure::Rectangular,
        Accum::Replace,
        left,
        left_is,
        right,
        right_is,
        T::of(1.0),
        Par::Seq,
    );
    product
}

/// What a truncation keeps of a spectrum.
#[derive(Debug)]
struct Kept<T> {
    /// The singular vectors of one side, without those of negligible singular values.
    vectors: Mat<T>,
    /// Their singular values.
    values: Vec<f64>,
    norm: f64,
    error: f64,
}

impl<T: Number> Kept<T> {
    /// Of the squares of singular values, the eigenvalues of a Gram matrix of which the lower half is given. They are always
    /// looked for in `f64`; `None` also where the matrix is not known well enough
    /// for that. `size` is that of what it was made of, if it is larger than its largest eigenvalue.
    fn new(gram: MatRef<'_, T>, k: usize, size: f64) -> Option<Self> {
        let total = trace(gram);
        let Leading {
            mut vectors,
            values: squares,
            next,
        } = leading(gram, k)?;
        if T::SINGLE && !is_certain(&squares, next?, total, size) {
            return None;
        }
        let least = NEGLIGIBLE * NEGLIGIBLE * squares.first()?;
        let kept = squares.iter().take_while(|&&square| square > least);
        let values: Vec<f64> = kept.map(|square| square.sqrt()).collect();
        vectors.resize_with(vectors.nrows(), values.len(), |_, _| T::of(0.0));
        let lost = total - values.iter().map(|x| x * x).sum::<f64>();
        // What is left of a difference to the last digit.
        let lost = if lost > NEGLIGIBLE * NEGLIGIBLE * total {
            lost
        } else {
            0.0
        };
        Some(Self {
            vectors,
            values,
            norm: total.sqrt(),
            error: (lost / total).sqrt(),
        })
    }

    /// Multiplied with its factor, one side has columns of length 1, the other of the length of the singular
    /// values: afterwards both have the roots.
    fn share(&self, unit: &mut Mat<T>, other: &mut Mat<T>) {
        for ((x, y), value) in unit
            .col_iter_mut()
            .zip(other.col_iter_mut())
            .zip(&self.values)
        {
            let root = T::of(value.sqrt());
            x.iter_mut().for_each(|x| *x *= root);
            y.iter_mut().for_each(|y| *y /= root);
        }
    }

    fn truncated(&self, b_turned: Mat<T>, a_turned: Mat<T>) -> Truncated<T> {
        Truncated {
            b_turned,
            a_turned,
            norm: self.norm,
            error: self.error,
        }
    }
}

/// Whether a Gram matrix in `f32` tells the vectors that are kept from the others well enough, given its largest eigenvalues, the
/// one after them, the sum of all, and the size of what it was made of.
///
/// Rounding turns the vectors `i` and `j` towards each other by what it puts between them, about [`NOISE`] of the largest eigenvalue or of
/// the size, over the difference of their eigenvalues. What the kept part of the update changes by, relative to it, follows from the two that
/// are nearest to each other, the last one that is kept and the next.
fn is_certain(squares: &[f64], next: f64, total: f64, size: f64) -> bool {
    let (Some(first), Some(last)) = (squares.first(), squares.last()) else {
        return false;
    };
    let kept: f64 = squares.iter().sum();
    let off = NOISE * first.max(size) * (last / kept).sqrt() / (last - next);
    // What is lost is a difference.
    off < UNCERTAIN && total - kept > 1e-2 * total && IN_RANGE.contains(&total)
}

#[cfg(test)]
mod tests;
