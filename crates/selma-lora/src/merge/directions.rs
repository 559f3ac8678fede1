//! Merges of singular directions: TSV-M and Iso-C.

use faer::Mat;
use ndarray::Array2;

use crate::{
    LoraError,
    linalg::{from_turned, polar, to_turned},
};

/// TSV-M (arXiv 2412.00081): the leading singular vectors of every matrix side by side, made
/// orthogonal (the nearest orthonormal ones), with their own singular values between them.
///
/// Of matrix `i` at most `ranks[i]` components are taken, which leaves out the arbitrary vectors of
/// zero singular values, and at most `limit`.
///
/// # Errors
/// [`LoraError::NoConvergence`].
pub fn tsv(
    matrices: &[Array2<f64>],
    ranks: &[usize],
    limit: usize,
) -> Result<Array2<f64>, LoraError> {
    // On turned matrices left and right change places, and the result is turned back.
    let mut columns: Vec<(Vec<f64>, f64, Vec<f64>)> = Vec::new();
    let mut shape = (0, 0);
    for (matrix, &rank) in matrices.iter().zip(ranks) {
        let turned = to_turned(matrix);
        shape = (turned.nrows(), turned.ncols());
        let svd = turned.thin_svd().map_err(|_| LoraError::NoConvergence)?;
        let components = svd
            .U()
            .col_iter()
            .zip(svd.S().column_vector().iter())
            .zip(svd.V().col_iter());
        for ((left, &value), right) in components.take(rank.min(limit)) {
            columns.push((
                left.iter().copied().collect(),
                value,
                right.iter().copied().collect(),
            ));
        }
    }
    let entry = |values: &[f64], i: usize| values.get(i).copied().unwrap_or(0.0);
    let left = Mat::from_fn(shape.0, columns.len(), |i, j| {
        columns.get(j).map_or(0.0, |c| entry(&c.0, i))
    });
    let right = Mat::from_fn(shape.1, columns.len(), |i, j| {
        columns.get(j).map_or(0.0, |c| entry(&c.2, i))
    });
    let mut left = polar(left.as_ref())?;
    for (column, (_, value, _)) in left.col_iter_mut().zip(&columns) {
        column.iter_mut().for_each(|x| *x *= value);
    }
    Ok(from_turned(&(left * polar(right.as_ref())?.transpose())))
}

/// Iso-C (arXiv 2502.04959): a matrix with all singular values replaced by their mean. Every
/// direction counts, also those of zero singular values: on a core of the size of the ranks this is
/// well defined, on a dense update of low rank it is not.
///
/// # Errors
/// [`LoraError::NoConvergence`].
pub fn isotropic(matrix: &Array2<f64>) -> Result<Array2<f64>, LoraError> {
    let svd = to_turned(matrix)
        .thin_svd()
        .map_err(|_| LoraError::NoConvergence)?;
    let values = svd.S().column_vector();
    let mean = values.iter().sum::<f64>() / values.nrows().max(1) as f64;
    Ok(from_turned(
        &(faer::Scale(mean) * (svd.U() * svd.V().transpose())),
    ))
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    fn close(x: &Array2<f64>, y: &Array2<f64>) {
        assert_eq!(x.dim(), y.dim());
        assert!((x - y).iter().all(|d| d.abs() < 1e-12), "{x} {y}");
    }

    #[test]
    fn one_task_or_orthogonal_tasks_stay_as_they_are() {
        let x = arr2(&[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]);
        let y = arr2(&[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]);
        close(&tsv(std::slice::from_ref(&x), &[1], 2).unwrap(), &x);
        close(
            &tsv(&[x.clone(), y.clone()], &[1, 1], 1).unwrap(),
            &(&x + &y),
        );
    }

    #[test]
    fn equal_directions_are_pulled_apart() {
        // Twice the same direction: the polar factor of [u, u] gives each 1/sqrt(2) on either side.
        let x = arr2(&[[2.0, 0.0], [0.0, 0.0]]);
        let merged = tsv(&[x.clone(), x.clone()], &[1, 1], 1).unwrap();
        assert!(merged[[0, 0]].is_finite() && merged[[0, 0]] <= 4.0);
    }

    #[test]
    fn all_singular_values_become_their_mean() {
        let x = arr2(&[[0.0, 3.0], [-1.0, 0.0]]);
        close(&isotropic(&x).unwrap(), &arr2(&[[0.0, 2.0], [-2.0, 0.0]]));
    }
}
