//! Truncated singular value decompositions by the eigenvectors of a Gram matrix.
//!
//! Where a product is truncated, all but a few of its singular vectors are thrown away. A Gram matrix has
//! the same vectors and is cheap to form, and the [`leading`] ones can be had alone; only the
//! singular values come out squared, so that those below 1e-8 of the largest are lost in rounding. That does
//! not matter here: the vectors are made orthonormal and the product itself is projected on them, so that
//! what an error in them costs is its square.

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
    linalg::{NEGLIGIBLE, Truncated},
};

/// The smallest size that is worth it. Below, a full decomposition takes under a millisecond.
const LEAST_SIZE: usize = 64;

/// Factors whose product is this much smaller than they are, in squares, cancel each other. Their Gram matrices know
/// the product to 1e-16 of their own size: to 1e-9 of its size at least. That of random factors is 1e-5.
const CANCELLED: f64 = 1e-7;

/// True when truncating to `k` a product whose smallest dimension is `size` is faster this way.
pub(crate) fn pays(size: usize, k: usize) -> bool {
    size >= LEAST_SIZE && k < size
}

/// True when [`truncate_product`] is faster than multiplying `[m, r]` by `[r, n]` first, by the
/// multiplications that each of them takes.
pub(crate) fn product_pays(m: usize, n: usize, r: usize, k: usize) -> bool {
    let (long, short) = (m.max(n), m.min(n));
    // Measured at 640 rows: in the time that the eigenvectors take, a product of matrices has done as many.
    let eigenvectors = |size: usize| 2 * size * size * size;
    let product = (m + n) * r * (r / 2 + k) + r * r * (r + 2 * k) + eigenvectors(r);
    let dense = m * n * (r + k) + long * short * short / 2 + eigenvectors(short);
    r <= long && product < dense
}

/// Truncates `b [m, r] a^T [r, n]` with `r` at most the larger of `m` and `n`. `None` when the columns of the longer factor
/// are linearly dependent to the last digit, when the factors cancel each other, or numbers are not finite, which a full
/// decomposition copes with.
///
/// With the Cholesky decomposition `long^T long = L L^T` of the longer factor, `short L` has the singular values of the
/// product and its vectors on the side of `short`. All that is done with them is done in `r` dimensions: the
/// factors themselves are multiplied once, at the end.
pub(crate) fn truncate_product(
    b: MatRef<'_, f64>,
    a: MatRef<'_, f64>,
    k: usize,
) -> Option<Truncated> {
    let b_is_longer = b.nrows() >= a.nrows();
    let (long, short) = if b_is_longer { (b, a) } else { (a, b) };
    let mut inner = gram(long);
    let largest = inner.diagonal().column_vector().norm_max();
    let energy = trace(inner.as_ref());
    // Dependent columns leave zeros or, by rounding, less; lifted by what is below NEGLIGIBLE^2.
    for value in inner.diagonal_mut().column_vector_mut().iter_mut() {
        *value += 16.0 * f64::EPSILON * largest;
    }
    let root = inner.llt(Side::Lower).ok()?;
    let other = mirrored(gram(short));
    let energy = energy * trace(other.as_ref());
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
        1.0,
        Par::Seq,
    );
    let kept = Kept::new(core, k)?;
    if kept.values.first()?.powi(2) < CANCELLED * energy {
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
    multiply(a_kept, Accum::Replace, a, for_a, 1.0, Par::Seq);
    let (b_kept, for_b) = (b_turned.subrows_mut(0, rank), for_b.transpose());
    multiply(b_kept, Accum::Replace, for_b, b.transpose(), 1.0, Par::Seq);
    Some(kept.truncated(b_turned, a_turned))
}

/// Truncates a dense `[m, n]`; `None` when it is zero or not finite.
pub(crate) fn truncate_dense(dense: MatRef<'_, f64>, k: usize) -> Option<Truncated> {
    // The vectors on the shorter side.
    let wide = dense.nrows() < dense.ncols();
    let tall = if wide { dense.transpose() } else { dense };
    let kept = Kept::new(gram(tall), k)?;
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
pub(crate) fn gram(matrix: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(matrix.ncols(), matrix.ncols());
    matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        matrix.transpose(),
        BlockStructure::Rectangular,
        matrix,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    product
}

fn trace(matrix: MatRef<'_, f64>) -> f64 {
    matrix.diagonal().column_vector().iter().sum()
}

/// A symmetric matrix of which the lower half is given.
pub(crate) fn mirrored(mut lower: Mat<f64>) -> Mat<f64> {
    for j in 1..lower.ncols() {
        let (left, right) = lower.as_mut().split_at_col_mut(j);
        let row = left.row(j).transpose();
        right.col_mut(0).subrows_mut(0, j).copy_from(row);
    }
    lower
}

/// A product of matrices of which one is triangular.
fn times(
    left: MatRef<'_, f64>,
    left_is: BlockStructure,
    right: MatRef<'_, f64>,
    right_is: BlockStructure,
) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(
        product.as_mut(),
        BlockStructure::Rectangular,
        Accum::Replace,
        left,
        left_is,
        right,
        right_is,
        1.0,
        Par::Seq,
    );
    product
}

/// What a truncation keeps of a spectrum.
#[derive(Debug)]
struct Kept {
    /// The singular vectors of one side, without those of negligible singular values.
    vectors: Mat<f64>,
    /// Their singular values.
    values: Vec<f64>,
    norm: f64,
    error: f64,
}

impl Kept {
    /// Of the squares of singular values, the eigenvalues of a Gram matrix of which the lower half is given.
    fn new(gram: Mat<f64>, k: usize) -> Option<Self> {
        let total = trace(gram.as_ref());
        let Leading {
            mut vectors,
            values: squares,
        } = leading(gram, k)?;
        let least = NEGLIGIBLE * NEGLIGIBLE * squares.first()?;
        let kept = squares.iter().take_while(|&&square| square > least);
        let values: Vec<f64> = kept.map(|square| square.sqrt()).collect();
        vectors.resize_with(vectors.nrows(), values.len(), |_, _| 0.0);
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
    fn share(&self, unit: &mut Mat<f64>, other: &mut Mat<f64>) {
        for ((x, y), value) in unit
            .col_iter_mut()
            .zip(other.col_iter_mut())
            .zip(&self.values)
        {
            let root = value.sqrt();
            x.iter_mut().for_each(|x| *x *= root);
            y.iter_mut().for_each(|y| *y /= root);
        }
    }

    fn truncated(&self, b_turned: Mat<f64>, a_turned: Mat<f64>) -> Truncated {
        Truncated {
            b_turned,
            a_turned,
            norm: self.norm,
            error: self.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::{test_numbers as numbers, truncate, truncate_dense};

    /// The best approximation, by a full decomposition, and what it leaves.
    fn best(product: &Mat<f64>, k: usize) -> (Mat<f64>, f64) {
        let svd = product.thin_svd().unwrap();
        let s = svd.S().column_vector();
        let mut left = svd.U().subcols(0, k).to_owned();
        for (column, value) in left.col_iter_mut().zip(s.iter()) {
            column.iter_mut().for_each(|x| *x *= value);
        }
        let lost = s.iter().skip(k).map(|x| x * x).sum::<f64>().sqrt();
        (left * svd.V().subcols(0, k).transpose(), lost)
    }

    fn check(product: &Mat<f64>, cut: &Truncated, k: usize) {
        let (near, lost) = best(product, k);
        let found = (&cut.a_turned * &cut.b_turned).transpose().to_owned();
        let size = product.norm_l2();
        assert_eq!(cut.a_turned.ncols(), k);
        assert!((&found - near).norm_l2() < 1e-7 * size);
        assert!(((&found - product).norm_l2() - lost).abs() < 1e-7 * size);
        assert!((cut.norm / size - 1.0).abs() < 1e-12);
        assert!((cut.error * cut.norm - lost).abs() < 1e-7 * size);
    }

    #[test]
    fn it_is_the_best_approximation_whichever_side_is_longer() {
        for (m, r, n, k) in [
            (150, 70, 100, 9),
            (100, 70, 150, 69),
            (90, 300, 70, 5),
            // Wider than one of the sides, and still not multiplied first.
            (900, 90, 80, 9),
            (80, 90, 900, 70),
        ] {
            assert!(pays(m.min(n).min(r), k));
            let (b, a) = (numbers(r, m, 1), numbers(n, r, 2));
            let product = (&a * &b).transpose().to_owned();
            check(&product, &truncate(&b, &a, k).unwrap(), k);
            check(&product, &truncate_dense(product.as_ref(), k).unwrap(), k);
        }
    }

    #[test]
    fn what_has_a_lower_rank_is_kept_whole() {
        // Rank 6 in 70 columns: the Gram matrix of either factor is singular.
        let (b, a) = (
            numbers(70, 6, 3) * numbers(6, 150, 4),
            numbers(100, 6, 5) * numbers(6, 70, 6),
        );
        let product = (&a * &b).transpose().to_owned();
        for k in [6, 20] {
            let cut = truncate(&b, &a, k).unwrap();
            check(&product, &cut, k);
            assert!(cut.error < 1e-7);
        }
        assert!(truncate(&b, &a, 5).unwrap().error > 1e-3);
    }

    #[test]
    fn what_nearly_cancels_is_cut_as_exactly() {
        // `(x + 1e-6 y) z - x z`: a millionth of the factors.
        let (x, y, z) = (
            numbers(40, 150, 7),
            numbers(40, 150, 8),
            numbers(100, 40, 9),
        );
        let b = Mat::from_fn(80, 150, |i, j| {
            x[(i % 40, j)] + if i < 40 { 1e-6 * y[(i, j)] } else { 0.0 }
        });
        let a = Mat::from_fn(
            100,
            80,
            |i, j| if j < 40 { z[(i, j)] } else { -z[(i, j - 40)] },
        );
        let product = (faer::Scale(1e-6) * (&z * &y)).transpose().to_owned();
        let (near, _) = best(&product, 9);
        let cut = truncate(&b, &a, 9).unwrap();
        let found = (&cut.a_turned * &cut.b_turned).transpose().to_owned();
        assert!((found - near).norm_l2() < 1e-7 * product.norm_l2());
    }

    #[test]
    fn roots_are_shared_and_zeros_stay_zeros() {
        let (b, a) = (numbers(70, 150, 7), numbers(100, 70, 8));
        let cut = truncate(&b, &a, 4).unwrap();
        for (x, y) in cut.b_turned.row_iter().zip(cut.a_turned.col_iter()) {
            assert!((x.norm_l2() / y.norm_l2() - 1.0).abs() < 1e-9);
        }
        for (b, a) in [(&Mat::zeros(70, 150), &a), (&b, &Mat::zeros(100, 70))] {
            let cut = truncate(b, a, 4).unwrap();
            assert_eq!((cut.norm, cut.error), (0.0, 0.0));
            assert_eq!((&cut.a_turned * &cut.b_turned).norm_l2(), 0.0);
        }
    }
}
