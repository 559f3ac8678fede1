//! Merges of singular directions: TSV-M and Iso-C.

use faer::Mat;
use ndarray::Array2;

use crate::{
    LoraError,
    linalg::{from_turned, polar, support, to_turned},
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
    fn directions_are_pulled_apart_evenly() {
        // At 0 and 45 degrees: the nearest right angle around their middle is -22.5 and 67.5.
        let half = 0.5_f64.sqrt();
        let x = arr2(&[[2.0, 0.0], [0.0, 0.0]]);
        let y = arr2(&[[0.0, 3.0 * half], [0.0, 3.0 * half]]);
        let merged = tsv(&[x, y], &[1, 1], 1).unwrap();
        let angle = 22.5_f64.to_radians();
        let expected = arr2(&[
            [2.0 * angle.cos(), 3.0 * angle.sin()],
            [-2.0 * angle.sin(), 3.0 * angle.cos()],
        ]);
        close(&merged, &expected);
    }

    #[test]
    fn what_is_the_same_stays_the_same() {
        let x = arr2(&[[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]);
        close(&tsv(&[x.clone(), x.clone()], &[3, 3], 3).unwrap(), &x);
        let zero = Array2::zeros((2, 2));
        close(&tsv(std::slice::from_ref(&zero), &[1], 1).unwrap(), &zero);
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
