//! Dense linear algebra on the factors of one module, in `f64`.

use faer::{Mat, MatRef};
use ndarray::{ArrayD, IxDyn};

use crate::{LoraError, LoraModule};

impl LoraModule {
    /// `A` as a matrix `[rank, in * kh * kw]`.
    pub(crate) fn a_matrix(&self) -> Mat<f64> {
        matrix(&self.a)
    }

    /// `B` as a matrix `[out, rank]`.
    pub(crate) fn b_matrix(&self) -> Mat<f64> {
        matrix(&self.b)
    }
}

/// The first dimension stays, the others are multiplied together.
fn matrix(factor: &ArrayD<f32>) -> Mat<f64> {
    let rows = factor.shape().first().copied().unwrap_or(0);
    let columns = factor.shape().iter().skip(1).product();
    let values: Vec<f64> = factor.iter().map(|&x| f64::from(x)).collect();
    MatRef::from_row_major_slice(&values, rows, columns).to_owned()
}

/// A matrix rounded to `f32` in row-major order; `shape` must hold as many numbers.
pub(crate) fn to_factor(
    matrix: MatRef<'_, f64>,
    shape: &[usize],
) -> Result<ArrayD<f32>, LoraError> {
    let values = matrix
        .row_iter()
        .flat_map(|row| row.iter().map(|&x| x as f32))
        .collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| LoraError::WeightShapes {
        expected: shape.to_vec(),
        found: vec![matrix.nrows(), matrix.ncols()],
    })
}

/// Frobenius norm of `B A` for `B [m, r]`, `A [r, n]`.
pub(crate) fn product_norm(b: &Mat<f64>, a: &Mat<f64>) -> f64 {
    let (m, n, r) = (b.nrows(), a.ncols(), b.ncols());
    if m * n <= (m + n) * r {
        return (b * a).norm_l2();
    }
    // ||BA||^2 = <B^T B, A A^T> needs no dense product.
    let left = b.transpose() * b;
    let right = a * a.transpose();
    let squared: f64 = left
        .col_iter()
        .zip(right.col_iter())
        .map(|(x, y)| x.iter().zip(y.iter()).map(|(x, y)| x * y).sum::<f64>())
        .sum();
    // Rounding can leave a tiny negative number where the product is zero.
    squared.max(0.0).sqrt()
}

/// The best approximation of a product by one of lower rank.
#[derive(Debug)]
pub(crate) struct Truncated {
    /// `[m, k]`, with the square roots of the singular values.
    pub(crate) b: Mat<f64>,
    /// `[k, n]`, with the square roots of the singular values.
    pub(crate) a: Mat<f64>,
    /// Frobenius norm of the whole product.
    pub(crate) norm: f64,
    /// Frobenius norm of what was cut off, relative to `norm`; 0 for a product of zero.
    pub(crate) error: f64,
}

/// Truncated singular value decomposition of `B A` for `B [m, r]`, `A [r, n]`, to rank
/// `k <= min(m, n, r)`.
///
/// While the product has lower rank than its size, it is never formed: with `B = Q_b R_b` and
/// `A^T = Q_a R_a`, the decomposition of the small `R_b R_a^T = U S V^T` gives that of the product
/// as `(Q_b U) S (Q_a V)^T`.
pub(crate) fn truncate(b: &Mat<f64>, a: &Mat<f64>, k: usize) -> Result<Truncated, LoraError> {
    let (m, n, r) = (b.nrows(), a.ncols(), b.ncols());
    let svd = |core: &Mat<f64>| core.thin_svd().map_err(|_| LoraError::NoConvergence);
    let (u, s, v, bases) = if r >= m.min(n) {
        let svd = svd(&(b * a))?;
        (
            svd.U().to_owned(),
            values(svd.S()),
            svd.V().to_owned(),
            None,
        )
    } else {
        let (left, right) = (b.qr(), a.transpose().qr());
        let svd = svd(&(left.thin_R() * right.thin_R().transpose()))?;
        let bases = (left.compute_thin_Q(), right.compute_thin_Q());
        (
            svd.U().to_owned(),
            values(svd.S()),
            svd.V().to_owned(),
            Some(bases),
        )
    };
    let scaled = |vectors: &Mat<f64>| {
        let mut kept = vectors.subcols(0, k.min(s.len())).to_owned();
        for (column, value) in kept.col_iter_mut().zip(&s) {
            let root = value.sqrt();
            column.iter_mut().for_each(|x| *x *= root);
        }
        kept
    };
    let (left, right) = match bases {
        None => (scaled(&u), scaled(&v)),
        Some((q_b, q_a)) => (q_b * scaled(&u), q_a * scaled(&v)),
    };
    let total: f64 = s.iter().map(|x| x * x).sum();
    let lost: f64 = s.iter().skip(k).map(|x| x * x).sum();
    Ok(Truncated {
        b: left,
        a: right.transpose().to_owned(),
        norm: total.sqrt(),
        error: if total > 0.0 {
            (lost / total).sqrt()
        } else {
            0.0
        },
    })
}

/// Singular values, largest first.
fn values(diagonal: faer::diag::DiagRef<'_, f64>) -> Vec<f64> {
    diagonal.column_vector().iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
        use rand::SeedableRng;
        use rand_distr::{Distribution, StandardNormal};
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Mat::from_fn(rows, columns, |_, _| StandardNormal.sample(&mut generator))
    }

    #[test]
    fn norms_do_not_depend_on_the_route() {
        for (m, r, n) in [(40, 2, 30), (6, 9, 5), (40, 12, 30), (1, 1, 1)] {
            let (b, a) = (numbers(m, r, 1), numbers(r, n, 2));
            let dense = (&b * &a).norm_l2();
            assert!((product_norm(&b, &a) / dense - 1.0).abs() < 1e-12);
        }
        assert_eq!(product_norm(&Mat::zeros(40, 2), &numbers(2, 30, 3)), 0.0);
    }

    #[test]
    fn both_routes_give_the_best_approximation() {
        // Small rank: through QR; rank at least the smaller side: dense; both sides in turn.
        for (m, r, n, k) in [
            (40, 8, 30, 3),
            (30, 8, 40, 8),
            (12, 20, 9, 4),
            (9, 9, 30, 9),
        ] {
            let (b, a) = (numbers(m, r, 4), numbers(r, n, 5));
            let product = &b * &a;
            let s = values(product.thin_svd().unwrap().S());
            let cut = truncate(&b, &a, k).unwrap();
            assert_eq!((cut.b.ncols(), cut.a.nrows()), (k, k));
            let distance = (&product - &cut.b * &cut.a).norm_l2();
            let best = s.iter().skip(k).map(|x| x * x).sum::<f64>().sqrt();
            assert!((distance - best).abs() < 1e-10 * product.norm_l2());
            assert!((cut.norm - product.norm_l2()).abs() < 1e-10 * cut.norm);
            assert!((cut.error * cut.norm - best).abs() < 1e-10 * cut.norm);
        }
    }

    #[test]
    fn a_product_of_zero_loses_nothing() {
        let cut = truncate(&Mat::zeros(6, 3), &numbers(3, 7, 1), 2).unwrap();
        assert_eq!((cut.norm, cut.error), (0.0, 0.0));
        assert_eq!((&cut.b * &cut.a).norm_l2(), 0.0);
    }
}
