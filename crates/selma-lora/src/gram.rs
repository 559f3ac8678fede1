//! Truncated singular value decompositions by the eigenvectors of a Gram matrix.
//!
//! Where a product is truncated, all but a few of its singular vectors are thrown away. A Gram matrix has
//! the same vectors and is cheap to form and to decompose; only the singular values come out squared,
//! so that those below 1e-8 of the largest are lost in rounding. That does not matter here: the
//! vectors are made orthonormal and the product itself is projected on them, so that what an error in them
//! costs is its square.

use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::matmul::triangular::{BlockStructure, matmul},
};

use crate::linalg::{NEGLIGIBLE, Truncated};

/// The smallest size that is worth it. Below, a full decomposition takes under a millisecond.
const LEAST_SIZE: usize = 64;

/// True when truncating to `k` a product whose smallest dimension is `size` is faster this way.
pub(crate) fn pays(size: usize, k: usize) -> bool {
    size >= LEAST_SIZE && k < size
}

/// Truncates `left [m, r] right^T [r, n]` with `r` below `m` and `n`. `None` when the factors are
/// linearly dependent to the last digit or not finite, which a full decomposition copes with.
///
/// With the Cholesky decomposition `left^T left = L L^T` of the longer factor, `right L` has the
/// singular values of the product and its vectors on the side of `right`.
pub(crate) fn truncate_product(
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    k: usize,
) -> Option<Truncated> {
    if left.nrows() < right.nrows() {
        let (other, basis, squares) = project(right, left, k)?;
        return Some(balance(basis, other, &squares));
    }
    let (other, basis, squares) = project(left, right, k)?;
    Some(balance(other, basis, &squares))
}

/// Truncates a dense `[m, n]`; `None` when it is not finite.
pub(crate) fn truncate_dense(dense: MatRef<'_, f64>, k: usize) -> Option<Truncated> {
    // The vectors on the shorter side.
    if dense.nrows() < dense.ncols() {
        let (basis, squares) = leading(gram(dense.transpose()).as_ref(), k)?;
        let other = dense.transpose() * &basis;
        return Some(balance(basis, other, &squares));
    }
    let (basis, squares) = leading(gram(dense).as_ref(), k)?;
    let other = dense * &basis;
    Some(balance(other, basis, &squares))
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

/// Orthonormal `V [n, k]` of the leading singular vectors of `long [m, r] short^T [r, n]` on the side of
/// `short`, the product times `V`, and the squares of all singular values.
fn project(
    long: MatRef<'_, f64>,
    short: MatRef<'_, f64>,
    k: usize,
) -> Option<(Mat<f64>, Mat<f64>, Vec<f64>)> {
    let mut inner = gram(long);
    let largest = inner.diagonal().column_vector().norm_max();
    // Dependent columns leave zeros or, by rounding, less; lifted by what is below NEGLIGIBLE^2.
    for value in inner.diagonal_mut().column_vector_mut().iter_mut() {
        *value += 16.0 * f64::EPSILON * largest;
    }
    let root = inner.llt(Side::Lower).ok()?;
    let mut core = Mat::zeros(short.nrows(), short.ncols());
    matmul(
        core.as_mut(),
        BlockStructure::Rectangular,
        Accum::Replace,
        short,
        BlockStructure::Rectangular,
        root.L(),
        BlockStructure::TriangularLower,
        1.0,
        Par::Seq,
    );
    let (vectors, squares) = leading(gram(core.as_ref()).as_ref(), k)?;
    // Columns of negligible singular values are not orthogonal yet, or are zero.
    let basis = (core * vectors).qr().compute_thin_Q();
    let inner = short.transpose() * &basis;
    Some((long * inner, basis, squares))
}

/// The `k` leading eigenvectors of a Gram matrix of which the lower half is given, and all its
/// eigenvalues, the largest first, without those that are rounding.
fn leading(gram: MatRef<'_, f64>, k: usize) -> Option<(Mat<f64>, Vec<f64>)> {
    let eigen = gram.self_adjoint_eigen(Side::Lower).ok()?;
    let values = eigen.S().column_vector();
    let mut values: Vec<f64> = values.iter().rev().copied().collect();
    let largest = *values.first()?;
    if !largest.is_finite() {
        return None;
    }
    for value in &mut values {
        if *value <= NEGLIGIBLE * NEGLIGIBLE * largest {
            *value = 0.0;
        }
    }
    let vectors = eigen.U().reverse_cols().subcols(0, k).to_owned();
    Some((vectors, values))
}

/// Of `B` and `A^T` one has columns of length 1, the other of the length of the singular values:
/// afterwards both have the roots.
fn balance(mut b: Mat<f64>, mut a_turned: Mat<f64>, squares: &[f64]) -> Truncated {
    for (x, y) in b.col_iter_mut().zip(a_turned.col_iter_mut()) {
        let (x_length, y_length) = (x.norm_l2(), y.norm_l2());
        let root = (x_length * y_length).sqrt();
        // A column of zeros makes the other one idle.
        let scale = |length: f64| if root > 0.0 { root / length } else { 0.0 };
        let (for_x, for_y) = (scale(x_length), scale(y_length));
        x.iter_mut().for_each(|value| *value *= for_x);
        y.iter_mut().for_each(|value| *value *= for_y);
    }
    Truncated::new(&b, a_turned, squares)
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
        for (m, r, n, k) in [(150, 70, 100, 9), (100, 70, 150, 69), (90, 300, 70, 5)] {
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
