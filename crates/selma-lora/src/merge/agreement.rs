//! Means that depend on how much the updates agree: Model Stock and SCE.

use ndarray::Array2;

use super::{
    consensus::{Majority, sign_consensus, weighted_sum},
    sparsify::magnitude,
    spherical::inner_products,
};

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn mean(tensors: &[&[f64]], position: usize) -> f64 {
    let sum: f64 = tensors.iter().filter_map(|x| x.get(position)).sum();
    sum / tensors.len() as f64
}

fn length(tensors: &[&[f64]]) -> usize {
    tensors.first().map_or(0, |x| x.len())
}

/// Model Stock (arXiv 2403.19522, mergekit `model_stock.py`): the mean times
/// `N cos / (1 + (N - 1) cos)`, where `cos` is the mean cosine of all pairs. A single tensor stays
/// as it is.
#[must_use]
pub fn model_stock(tensors: &[&[f64]]) -> Vec<f64> {
    let weight = model_stock_weight(&inner_products(tensors));
    weighted_sum(tensors, &vec![weight; tensors.len()])
}

/// What [`model_stock`] multiplies every tensor by, given their inner products.
pub(super) fn model_stock_weight(products: &Array2<f64>) -> f64 {
    let mut sum = 0.0;
    let mut pairs = 0.0;
    let squares = products.diag();
    for ((i, j), &product) in products.indexed_iter().filter(|((i, j), _)| i < j) {
        let square = |at| squares.get(at).copied().unwrap_or(0.0);
        // mergekit's least product of norms.
        let norms = (square(i) * square(j)).max(0.0).sqrt().max(1e-6);
        sum += (product / norms).clamp(-1.0, 1.0);
        pairs += 1.0;
    }
    let cosine = if pairs > 0.0 { sum / pairs } else { 1.0 };
    let count = squares.len() as f64;
    let divisor = 1.0 + (count - 1.0) * cosine;
    if divisor.abs() < 1e-6 {
        0.0
    } else {
        cosine / divisor
    }
}

/// SCE (arXiv 2408.07990, mergekit `sce.py`): keeps the share `density` of the entries that vary
/// most between the tensors, elects signs, and weighs each tensor by its mean square.
#[must_use]
pub fn sce(tensors: &[&[f64]], density: f64) -> Vec<f64> {
    let kept = most_varied(tensors, density);
    let selected: Vec<Vec<f64>> = tensors
        .iter()
        .map(|tensor| {
            let entries = tensor.iter().zip(&kept);
            entries
                .map(|(&x, &keep)| if keep { x } else { 0.0 })
                .collect()
        })
        .collect();
    let selected: Vec<&[f64]> = selected.iter().map(Vec::as_slice).collect();
    let squares: Vec<f64> = selected
        .iter()
        .map(|x| dot(x, x) / x.len().max(1) as f64)
        .collect();
    let total: f64 = squares.iter().sum();
    let weights: Vec<f64> = if total < 1e-6 {
        vec![1.0 / tensors.len() as f64; tensors.len()]
    } else {
        squares.iter().map(|square| square / total).collect()
    };
    // The sign is elected on the entries themselves, the weights come after.
    let elected = sign_consensus(
        &selected,
        &vec![1.0; selected.len()],
        Majority::Total,
        false,
    );
    elected
        .iter()
        .enumerate()
        .map(|(at, &sign)| {
            let (sum, divisor) = selected
                .iter()
                .zip(&weights)
                .filter_map(|(tensor, weight)| Some((*tensor.get(at)?, weight)))
                .filter(|(x, _)| x * sign > 0.0)
                .fold((0.0, 0.0_f64), |(sum, divisor), (x, weight)| {
                    (sum + weight * x, divisor + weight)
                });
            sum / divisor.max(1e-6)
        })
        .collect()
}

/// Which entries are among the `floor(density * n)` of largest variance, `n` of which vary at all.
fn most_varied(tensors: &[&[f64]], density: f64) -> Vec<bool> {
    let count = length(tensors);
    if density >= 1.0 {
        return vec![true; count];
    }
    let mut variances: Vec<f64> = (0..count)
        .map(|at| {
            let mean = mean(tensors, at);
            let entries = tensors.iter().filter_map(|x| x.get(at));
            entries.map(|x| (x - mean).powi(2)).sum::<f64>() / tensors.len() as f64
        })
        .collect();
    let varied = variances.iter().filter(|&&x| x != 0.0).count();
    let kept = (varied as f64 * density) as usize;
    magnitude(&mut variances, 0.0, kept);
    variances.iter().map(|&x| x != 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_short_when_nothing_agrees() {
        assert_eq!(model_stock(&[&[1.0, 2.0]]), [1.0, 2.0]);
        assert_eq!(model_stock(&[&[1.0, 0.0], &[0.0, 1.0]]), [0.0, 0.0]);
        assert_eq!(model_stock(&[&[1.0, 0.0], &[-1.0, 0.0]]), [0.0, 0.0]);
        let same = model_stock(&[&[1.0, 2.0], &[1.0, 2.0]]);
        assert!(
            same.iter()
                .zip([1.0, 2.0])
                .all(|(x, y)| (x - y).abs() < 1e-12)
        );
    }

    #[test]
    fn sce_selects_weighs_and_erases() {
        // Energies 5 and 1 of 6; the second entry has no majority against 2.
        let merged = sce(&[&[1.0, 2.0], &[1.0, -1.0]], 1.0);
        let weights = [5.0 / 7.0, 2.0 / 7.0];
        assert!((merged[0] - (weights[0] + weights[1])).abs() < 1e-12);
        assert!((merged[1] - 2.0).abs() < 1e-12);
        // Only the second entry varies, and half of one entry is none.
        assert_eq!(sce(&[&[1.0, 2.0], &[1.0, -1.0]], 0.5), [0.0, 0.0]);
        let one_of_two = sce(&[&[1.0, 2.0], &[2.0, -1.0]], 0.5);
        assert_eq!(one_of_two, [0.0, 2.0]);
        assert_eq!(sce(&[&[0.0], &[0.0]], 1.0), [0.0]);
    }
}
