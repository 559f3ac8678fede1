//! Merges of singular directions: TSV-M and Iso-C.

use faer::{Mat, MatRef};
use ndarray::Array2;

use super::combine::{Factors, Term};
use crate::{
    LoraError,
    linalg::{from_turned, polar, side_by_side, support, to_turned, truncate},
};

/// TSV-M (arXiv 2412.00081): the leading singular vectors of every update side by side, made
/// orthogonal (the nearest orthonormal ones), with their own singular values between them.
///
/// Of every update at most `limit` components are taken, and never more than its rank, which leaves
/// out the arbitrary vectors of zero singular values. Everything stays in factors.
pub(super) fn tsv(terms: &[Option<Term<'_>>], limit: usize) -> Result<Factors, LoraError> {
    let mut left = Vec::new();
    let mut right = Vec::new();
    let mut roots = Vec::new();
    for term in terms.iter().flatten() {
        let (m, n) = (term.module.outputs(), term.module.inputs());
        let scaled = faer::Scale(term.coefficient()) * term.module.b_turned();
        let kept = term.module.rank().min(m).min(n).min(limit);
        let cut = truncate(&scaled, &term.module.a_turned(), kept)?;
        for (b, a) in cut.b_turned.row_iter().zip(cut.a_turned.col_iter()) {
            // Both have the root of the singular value as their length.
            roots.push(a.norm_l2());
            left.push(unit(b.iter()));
            right.push(unit(a.iter()));
        }
    }
    let scaled = |vectors: &[Vec<f64>]| -> Result<Mat<f64>, LoraError> {
        let mut orthogonal = polar(side_by_side(vectors).as_ref())?;
        for (column, &root) in orthogonal.col_iter_mut().zip(&roots) {
            column.iter_mut().for_each(|x| *x *= root);
        }
        Ok(orthogonal)
    };
    Ok(Factors {
        b_turned: scaled(&left)?.transpose().to_owned(),
        a_turned: scaled(&right)?,
        scale: 1.0,
    })
}

/// A vector of length 1, or zeros.
fn unit<'a>(vector: impl Iterator<Item = &'a f64>) -> Vec<f64> {
    let vector: Vec<f64> = vector.copied().collect();
    let norm = MatRef::from_column_major_slice(&vector, vector.len(), 1).norm_l2();
    if norm == 0.0 {
        return vector;
    }
    vector.iter().map(|x| x / norm).collect()
}

/// Iso-C (arXiv 2502.04959): a matrix with all singular values replaced by their mean. Those that are
/// zero have no direction of their own and are left out, which is what makes this well defined for
/// updates of low rank.
///
/// # Errors
/// [`LoraError::NoConvergence`].
pub fn isotropic(matrix: &Array2<f64>) -> Result<Array2<f64>, LoraError> {
    let turned = to_turned(matrix);
    let svd = turned.thin_svd().map_err(|_| LoraError::NoConvergence)?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let kept = support(&values);
    let mean = values.iter().take(kept).sum::<f64>() / kept as f64;
    let (left, right) = (svd.U().subcols(0, kept), svd.V().subcols(0, kept));
    Ok(from_turned(
        &(faer::Scale(mean) * (left * right.transpose())),
    ))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};

    use super::*;
    use crate::LoraModule;

    fn close(x: &Array2<f64>, y: &Array2<f64>) {
        assert_eq!(x.dim(), y.dim());
        assert!((x - y).iter().all(|d| d.abs() < 1e-6), "{x} {y}");
    }

    /// Modules whose updates are these matrices: the identity times the matrix.
    fn merged(matrices: &[&Array2<f64>], limit: usize) -> Array2<f64> {
        let modules: Vec<LoraModule> = matrices
            .iter()
            .map(|matrix| {
                let rank = matrix.nrows();
                let a = matrix.mapv(|x| x as f32).into_dyn();
                LoraModule::new(a, Array2::eye(rank).into_dyn(), rank as f64).unwrap()
            })
            .collect();
        let terms: Vec<Option<Term<'_>>> = modules
            .iter()
            .map(|module| {
                let weight = 1.0;
                Some(Term { module, weight })
            })
            .collect();
        let factors = tsv(&terms, limit).unwrap();
        from_turned(&(factors.a_turned * factors.b_turned))
    }

    #[test]
    fn one_task_or_orthogonal_tasks_stay_as_they_are() {
        let x = arr2(&[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]);
        let y = arr2(&[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]);
        close(&merged(&[&x], 2), &x);
        close(&merged(&[&x, &y], 1), &(&x + &y));
    }

    #[test]
    fn directions_are_pulled_apart_evenly() {
        // At 0 and 45 degrees: the nearest right angle around their middle is -22.5 and 67.5.
        let half = 0.5_f64.sqrt();
        let x = arr2(&[[2.0, 0.0], [0.0, 0.0]]);
        let y = arr2(&[[0.0, 3.0 * half], [0.0, 3.0 * half]]);
        let angle = 22.5_f64.to_radians();
        let expected = arr2(&[
            [2.0 * angle.cos(), 3.0 * angle.sin()],
            [-2.0 * angle.sin(), 3.0 * angle.cos()],
        ]);
        close(&merged(&[&x, &y], 1), &expected);
    }

    #[test]
    fn what_is_the_same_stays_the_same() {
        let x = arr2(&[[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]);
        close(&merged(&[&x, &x], 3), &x);
        let zero = Array2::zeros((2, 2));
        close(&merged(&[&zero], 1), &zero);
        close(&isotropic(&zero).unwrap(), &zero);
    }

    #[test]
    fn all_singular_values_become_their_mean() {
        let x = arr2(&[[0.0, 3.0], [-1.0, 0.0]]);
        close(&isotropic(&x).unwrap(), &arr2(&[[0.0, 2.0], [-2.0, 0.0]]));
        let flat = arr2(&[[0.0, 3.0], [0.0, 0.0]]);
        close(&isotropic(&flat).unwrap(), &flat);
    }
}
