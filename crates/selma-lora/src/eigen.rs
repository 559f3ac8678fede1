//! The leading eigenvectors of a symmetric matrix, without the others.
//!
//! The matrix is made tridiagonal by reflections, as a full decomposition begins, too. Then only what is
//! asked for is computed: eigenvalues by bisection, their vectors by inverse iteration (what LAPACK's `dsyevx`
//! does), and the reflections are applied to these vectors alone.

mod reduction;
mod shifted;
mod tridiagonal;

use faer::{Mat, MatRef};

use crate::number::{Number, cast};
use reduction::Reduction;

/// Eigenvectors as columns, and their eigenvalues, the largest first.
#[derive(Debug)]
pub(crate) struct Leading<T> {
    pub(crate) vectors: Mat<T>,
    pub(crate) values: Vec<f64>,
    /// The eigenvalue after these, if there is one.
    pub(crate) next: Option<f64>,
}

/// The `k` largest eigenvalues of the symmetric `matrix`, of which only the lower half is read. They are looked for in `f64`,
/// and the vectors rounded at the end, to what the matrix is in. `None` when
/// it is zero or has numbers that are not finite, or an inverse iteration does not end.
pub(crate) fn leading<T: Number>(matrix: MatRef<'_, T>, k: usize) -> Option<Leading<T>> {
    let n = matrix.nrows();
    if n < 2 {
        let diagonal = matrix.diagonal().column_vector();
        let values: Vec<f64> = diagonal.iter().map(|x| x.wide()).collect();
        return values.iter().all(|x| x.is_finite()).then_some(Leading {
            vectors: Mat::identity(n, n),
            values,
            next: None,
        });
    }
    let reduction = Reduction::new(matrix);
    let Leading {
        vectors,
        values,
        next,
    } = reduction.tridiagonal.leading(k)?;
    let mut vectors = cast(vectors.as_ref());
    reduction.reflect(&mut vectors);
    Some(Leading {
        vectors,
        values,
        next,
    })
}

#[cfg(test)]
mod tests {
    use faer::Side;

    use super::*;
    use crate::linalg::test_numbers as numbers;

    /// Against a full decomposition: eigenvalues, orthonormal vectors, and that they are eigenvectors.
    fn check(matrix: &Mat<f64>, k: usize) {
        let n = matrix.nrows();
        let full = matrix.self_adjoint_eigenvalues(Side::Lower).unwrap();
        let size = full.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        let found = leading(matrix.as_ref(), k).unwrap();
        assert_eq!((found.values.len(), found.vectors.shape()), (k, (n, k)));
        for (value, expected) in found.values.iter().zip(full.iter().rev()) {
            assert!(
                (value - expected).abs() < 1e-13 * n as f64 * size,
                "{value} {expected}"
            );
        }
        let vectors = &found.vectors;
        let unit = Mat::<f64>::identity(k, k);
        assert!((vectors.transpose() * vectors - unit).norm_max() < 1e-8);
        let symmetric = Mat::from_fn(n, n, |i, j| matrix[(i.max(j), i.min(j))]);
        for (vector, value) in vectors.col_iter().zip(&found.values) {
            assert!((&symmetric * vector - faer::Scale(*value) * vector).norm_l2() < 1e-11 * size);
        }
    }

    #[test]
    fn values_and_vectors_are_those_of_a_full_decomposition() {
        for (n, k) in [(2, 1), (3, 3), (40, 7), (100, 100), (130, 17), (211, 30)] {
            let x = numbers(n, n, n as u64);
            check(&(x.transpose() * &x), k);
            // Negative ones, too.
            check(&(&x + x.transpose()), k);
        }
    }

    #[test]
    fn equal_and_nearly_equal_values_have_vectors_of_their_own() {
        check(&Mat::identity(30, 30), 5);
        // Rank 4 of 50: all others are zero.
        let x = numbers(4, 50, 1);
        check(&(x.transpose() * &x), 9);
        let basis = numbers(60, 60, 2).qr().compute_thin_Q();
        for apart in [0.0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-5] {
            let scaled = Mat::from_fn(60, 60, |i, j| {
                basis[(i, j)] * (3.0 - (j / 7) as f64 * 0.25 + (j % 7) as f64 * apart)
            });
            check(&(scaled * basis.transpose()), 25);
        }
        // What falls off fast: most are near zero compared with the first.
        let scaled = Mat::from_fn(60, 60, |i, j| basis[(i, j)] * 0.3_f64.powi(j as i32));
        check(&(scaled * basis.transpose()), 40);
    }

    #[test]
    fn sizes_do_not_matter() {
        let x = numbers(20, 20, 3);
        let square = x.transpose() * &x;
        for size in [1e-140, 1e140] {
            check(&(faer::Scale(size) * &square), 6);
        }
    }

    #[test]
    fn without_an_answer_there_is_none() {
        for value in [0.0, f64::NAN, f64::INFINITY] {
            assert!(leading(Mat::full(9, 9, value).as_ref(), 2).is_none());
        }
        assert_eq!(
            leading(Mat::full(1, 1, 4.0).as_ref(), 1).unwrap().values,
            [4.0]
        );
    }
}
