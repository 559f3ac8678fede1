//! Dense linear algebra on the factors of one module, in `f64`.
//!
//! Factors are held turned: `A^T [in * kh * kw, rank]` and `B^T [rank, out]` in the column-major
//! order of `faer` are `A` and `B` in the row-major order of files, so nothing is shuffled.

use faer::{Mat, MatRef};
use ndarray::{Array2, ArrayD, IxDyn};

use crate::{
    LoraError, LoraModule, gram,
    module::row_major,
    number::{NEGLIGIBLE, Number, cast},
    truncated::Truncated,
};

impl LoraModule {
    /// `A^T [in * kh * kw, rank]`.
    pub(crate) fn a_turned(&self) -> Mat<f64> {
        turned(&self.a)
    }

    /// `B^T [rank, out]`.
    pub(crate) fn b_turned(&self) -> Mat<f64> {
        turned(&self.b)
    }
}

/// The first dimension becomes the columns, the others are multiplied together to the rows.
fn turned(factor: &ArrayD<f32>) -> Mat<f64> {
    let columns = factor.shape().first().copied().unwrap_or(0);
    let rows = factor.shape().iter().skip(1).product();
    let values = row_major(factor);
    cast(MatRef::from_column_major_slice(&values, rows, columns))
}

/// A matrix whose columns are put one behind the other: a large one is not filled with zeros before.
#[derive(Debug)]
pub(crate) struct Columns<T> {
    rows: usize,
    count: usize,
    values: Vec<T>,
}

impl<T: Number> Columns<T> {
    /// An empty one, with room for `count` columns.
    pub(crate) fn new(rows: usize, count: usize) -> Self {
        Self {
            rows,
            count,
            values: Vec::with_capacity(rows * count),
        }
    }

    /// Puts `by * values` behind what is there.
    pub(crate) fn push(&mut self, values: &[f32], by: f64) {
        let values = values.iter().map(|&x| T::of(by * f64::from(x)));
        self.values.extend(values);
    }

    /// The matrix, once all columns are there.
    pub(crate) fn as_ref(&self) -> MatRef<'_, T> {
        MatRef::from_column_major_slice(&self.values, self.rows, self.count)
    }
}

/// A turned factor; `shape` must hold as many numbers.
pub(crate) fn to_factor(turned: &Mat<f32>, shape: &[usize]) -> Result<ArrayD<f32>, LoraError> {
    let mut values = Vec::with_capacity(turned.nrows() * turned.ncols());
    for column in turned.col_iter() {
        let column = column.try_as_col_major().map(|column| column.as_slice());
        values.extend_from_slice(column.unwrap_or_default());
    }
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| LoraError::WeightShapes {
        expected: shape.to_vec(),
        found: vec![turned.ncols(), turned.nrows()],
    })
}

/// A turned matrix as it is, row by row.
pub(crate) fn from_turned(turned: &Mat<f64>) -> Array2<f64> {
    let (rows, columns) = (turned.ncols(), turned.nrows());
    Array2::from_shape_fn((rows, columns), |(i, j)| turned.get(j, i).to_owned())
}

/// A matrix, turned.
pub(crate) fn to_turned(matrix: &Array2<f64>) -> Mat<f64> {
    let (rows, columns) = matrix.dim();
    Mat::from_fn(columns, rows, |j, i| {
        matrix.get((i, j)).copied().unwrap_or(0.0)
    })
}

/// One column per vector.
pub(crate) fn side_by_side(vectors: &[Vec<f64>]) -> Mat<f64> {
    let rows = vectors.first().map_or(0, Vec::len);
    Mat::from_fn(rows, vectors.len(), |i, j| {
        let entry = vectors.get(j).and_then(|vector| vector.get(i));
        entry.copied().unwrap_or(0.0)
    })
}

/// How many of these descending singular values are not negligible, at least one if there are any.
pub(crate) fn support(values: &[f64]) -> usize {
    let least = NEGLIGIBLE * values.first().copied().unwrap_or(0.0);
    let kept = values.iter().filter(|&&value| value > least).count();
    kept.max(1).min(values.len())
}

/// The left singular vectors of a matrix `[m, c]`, one per column; all, or only those of singular
/// values that are not negligible.
pub(crate) fn columns_basis(
    matrix: MatRef<'_, f64>,
    only_support: bool,
) -> Result<Mat<f64>, LoraError> {
    let tall = matrix.nrows() > matrix.ncols();
    // Of a tall matrix only the small R is decomposed.
    let qr = tall.then(|| matrix.qr());
    let svd = match &qr {
        Some(qr) => qr.thin_R().thin_svd(),
        None => matrix.thin_svd(),
    }
    .map_err(|_| LoraError::NoConvergence)?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let kept = if only_support {
        support(&values)
    } else {
        values.len()
    };
    let vectors = svd.U().subcols(0, kept);
    Ok(match qr {
        Some(qr) => qr.compute_thin_Q() * vectors,
        None => vectors.to_owned(),
    })
}

/// The nearest matrix with orthonormal columns (rows, if it is wide): `U V^T` of the singular value
/// decomposition `U S V^T`, without the arbitrary vectors of negligible singular values.
pub(crate) fn polar(matrix: MatRef<'_, f64>) -> Result<Mat<f64>, LoraError> {
    // Of a tall matrix only the small R is decomposed.
    let qr = (matrix.nrows() > matrix.ncols()).then(|| matrix.qr());
    let core = qr.as_ref().map_or(matrix, |qr| qr.thin_R());
    let svd = core.thin_svd().map_err(|_| LoraError::NoConvergence)?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let kept = support(&values);
    let near = svd.U().subcols(0, kept) * svd.V().subcols(0, kept).transpose();
    Ok(match &qr {
        Some(qr) => qr.compute_thin_Q() * near,
        None => near,
    })
}

/// Frobenius norm of `B A`, given `B^T [r, m]` and `A^T [n, r]`.
pub(crate) fn product_norm(b_turned: &Mat<f64>, a_turned: &Mat<f64>) -> f64 {
    let (m, n, r) = (b_turned.ncols(), a_turned.nrows(), a_turned.ncols());
    if m * n <= (m + n) * r {
        return (a_turned * b_turned).norm_l2();
    }
    // ||BA||^2 = <B^T B, A A^T> needs no dense product, and of both only the lower halves: what is
    // below the diagonal counts twice.
    let left = gram::gram(b_turned.transpose());
    let right = gram::gram(a_turned.as_ref());
    let (mut twice, mut once) = (0.0, 0.0);
    for (j, (x, y)) in left.col_iter().zip(right.col_iter()).enumerate() {
        let mut products = x.iter().zip(y.iter()).skip(j).map(|(x, y)| x * y);
        once += products.next().unwrap_or(0.0);
        twice += products.sum::<f64>();
    }
    let squared: f64 = once + 2.0 * twice;
    // Rounding can leave a tiny negative number where the product is zero.
    squared.max(0.0).sqrt()
}

/// Truncated singular value decomposition of `B A` to rank `k <= min(m, n, r)`, given `B^T [r, m]`
/// and `A^T [n, r]`.
///
/// While the rank is clearly below the size of the product, the product is never formed; see
/// [`crate::gram`] for large products that are truncated, and for the others: with `B = Q_b R_b` and
/// `A^T = Q_a R_a`, the decomposition of the small `R_b R_a^T = U S V^T` gives that of the product as
/// `(Q_b U) S (Q_a V)^T`.
pub(crate) fn truncate(
    b_turned: &Mat<f64>,
    a_turned: &Mat<f64>,
    k: usize,
) -> Result<Truncated, LoraError> {
    let (m, n, r) = (b_turned.ncols(), a_turned.nrows(), a_turned.ncols());
    if gram::single_pays(m, n, r, k) {
        let [b, a] = [b_turned, a_turned].map(|factor| cast::<f64, f32>(factor.as_ref()));
        if let Some(cut) = gram::truncate_product_in(b.as_ref(), a.as_ref(), k) {
            return Ok(cut.widened());
        }
    }
    truncate_in_double(b_turned.as_ref(), a_turned.as_ref(), k)
}

/// [`truncate`] where single precision is not certain.
pub(crate) fn truncate_in_double(
    b_turned: MatRef<'_, f64>,
    a_turned: MatRef<'_, f64>,
    k: usize,
) -> Result<Truncated, LoraError> {
    if let Some(cut) = gram::truncate_product_in(b_turned, a_turned, k) {
        return Ok(cut);
    }
    let size = b_turned.ncols().min(a_turned.nrows());
    if gram::is_large(a_turned.ncols(), size) {
        return cut((a_turned * b_turned).transpose(), k, |left, right| {
            (left, right)
        });
    }
    let (left, right) = (b_turned.transpose().qr(), a_turned.qr());
    let core = left.thin_R() * right.thin_R().transpose();
    cut(core.as_ref(), k, |u, v| {
        (left.compute_thin_Q() * u, right.compute_thin_Q() * v)
    })
}

/// Truncated singular value decomposition of a dense `[m, n]` to rank `k`.
pub(crate) fn truncate_dense(dense: MatRef<'_, f64>, k: usize) -> Result<Truncated, LoraError> {
    if let Some(cut) = gram::truncate_dense(dense, k) {
        return Ok(cut);
    }
    cut(dense, k, |left, right| (left, right))
}

/// Decomposes a core and brings its leading singular vectors, times the roots of the singular values,
/// into the space of the product.
fn cut(
    core: MatRef<'_, f64>,
    k: usize,
    out_of_core: impl FnOnce(Mat<f64>, Mat<f64>) -> (Mat<f64>, Mat<f64>),
) -> Result<Truncated, LoraError> {
    let svd = core.thin_svd().map_err(|_| LoraError::NoConvergence)?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let scaled = |vectors: MatRef<'_, f64>| {
        let mut kept = vectors.subcols(0, k.min(values.len())).to_owned();
        for (column, value) in kept.col_iter_mut().zip(&values) {
            let root = value.sqrt();
            column.iter_mut().for_each(|x| *x *= root);
        }
        kept
    };
    let (left, right) = out_of_core(scaled(svd.U()), scaled(svd.V()));
    let energy = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let (total, lost) = (energy(&values), energy(values.get(k..).unwrap_or_default()));
    Ok(Truncated {
        b_turned: left.transpose().to_owned(),
        a_turned: right,
        norm: total.sqrt(),
        error: if total > 0.0 {
            (lost / total).sqrt()
        } else {
            0.0
        },
    })
}

/// Random numbers for tests.
#[cfg(test)]
pub(crate) fn test_numbers(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    Mat::from_fn(rows, columns, |_, _| StandardNormal.sample(&mut generator))
}

#[cfg(test)]
mod tests {
    use super::{test_numbers as numbers, *};

    #[test]
    fn norms_do_not_depend_on_the_route() {
        for (m, r, n) in [(40, 2, 30), (6, 9, 5), (40, 12, 30), (1, 1, 1)] {
            let (b, a) = (numbers(r, m, 1), numbers(n, r, 2));
            let dense = (&a * &b).norm_l2();
            assert!((product_norm(&b, &a) / dense - 1.0).abs() < 1e-12);
        }
        assert_eq!(product_norm(&Mat::zeros(2, 40), &numbers(30, 2, 3)), 0.0);
    }

    #[test]
    fn both_routes_give_the_best_approximation() {
        // Small rank: through QR; large rank: dense; either side the longer one.
        for (m, r, n, k) in [
            (40, 8, 30, 3),
            (30, 8, 40, 8),
            (12, 20, 9, 4),
            (9, 9, 30, 9),
        ] {
            let (b, a) = (numbers(r, m, 4), numbers(n, r, 5));
            let product = &a * &b;
            let s = product.thin_svd().unwrap();
            let cut = truncate(&b, &a, k).unwrap();
            assert_eq!((cut.b_turned.nrows(), cut.a_turned.ncols()), (k, k));
            let distance = (&product - &cut.a_turned * &cut.b_turned).norm_l2();
            let lost = s.S().column_vector().iter().skip(k).map(|x| x * x);
            let best = lost.sum::<f64>().sqrt();
            assert!((distance - best).abs() < 1e-10 * product.norm_l2());
            assert!((cut.norm - product.norm_l2()).abs() < 1e-10 * cut.norm);
            assert!((cut.error * cut.norm - best).abs() < 1e-10 * cut.norm);
        }
    }

    #[test]
    fn bases_span_what_is_there() {
        // Tall, wide, and of rank 3 with 6 columns.
        for (m, r, c) in [(20, 3, 6), (4, 3, 9), (20, 6, 6)] {
            let matrix = numbers(m, r, 7) * numbers(r, c, 8);
            let basis = columns_basis(matrix.as_ref(), true).unwrap();
            assert_eq!(basis.ncols(), r.min(m));
            let all = columns_basis(matrix.as_ref(), false).unwrap();
            assert_eq!(all.ncols(), m.min(c));
            for basis in [basis, all] {
                let unit = Mat::<f64>::identity(basis.ncols(), basis.ncols());
                assert!((basis.transpose() * &basis - unit).norm_l2() < 1e-12);
                let inside = &basis * (basis.transpose() * &matrix);
                assert!((inside - &matrix).norm_l2() < 1e-10);
            }
        }
        assert_eq!(support(&[0.0, 0.0]), 1);
        assert_eq!(support(&[]), 0);
    }

    #[test]
    fn a_product_of_zero_loses_nothing() {
        let cut = truncate(&Mat::zeros(3, 6), &numbers(7, 3, 1), 2).unwrap();
        assert_eq!((cut.norm, cut.error), (0.0, 0.0));
        assert_eq!((&cut.a_turned * &cut.b_turned).norm_l2(), 0.0);
    }
}
