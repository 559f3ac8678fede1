//! Consensus: how the entries that stay become one tensor.
//!
//! All take the tensors of the adapters as slices of the same length, in the same order of entries.

use serde::{Deserialize, Serialize};

/// What decides the sign of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Majority {
    /// The sign of the sum of the values.
    #[default]
    Total,
    /// The sign that more of the adapters have.
    Frequency,
}

impl Majority {
    /// True when the elected sign is positive; a tie is.
    fn positive(self, values: impl Iterator<Item = f64>) -> bool {
        let sum: f64 = match self {
            Self::Total => values.sum(),
            Self::Frequency => values.map(sign).sum(),
        };
        sum >= 0.0
    }
}

/// -1, 0 or 1, unlike [`f64::signum`].
fn sign(x: f64) -> f64 {
    f64::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}

fn agrees(x: f64, positive: bool) -> bool {
    if positive { x > 0.0 } else { x < 0.0 }
}

/// The entries of all tensors at one position, with the weights.
fn entries<'a>(
    tensors: &'a [&[f64]],
    weights: &'a [f64],
    position: usize,
) -> impl Iterator<Item = (f64, f64)> + Clone + 'a {
    tensors
        .iter()
        .zip(weights)
        .map(move |(tensor, &weight)| (tensor.get(position).copied().unwrap_or(0.0), weight))
}

fn length(tensors: &[&[f64]]) -> usize {
    tensors.first().map_or(0, |tensor| tensor.len())
}

/// `sum w_i X_i`
#[must_use]
pub fn weighted_sum(tensors: &[&[f64]], weights: &[f64]) -> Vec<f64> {
    (0..length(tensors))
        .map(|at| entries(tensors, weights, at).map(|(x, w)| w * x).sum())
        .collect()
}

/// TIES as PEFT has it (`merge_utils.py`: `calculate_majority_sign_mask`, `disjoint_merge`): the
/// sign is elected without the weights, and the weighted sum of what agrees is divided by how many
/// agree.
#[must_use]
pub fn disjoint_mean(tensors: &[&[f64]], weights: &[f64], majority: Majority) -> Vec<f64> {
    (0..length(tensors))
        .map(|at| {
            let all = entries(tensors, weights, at);
            let positive = majority.positive(all.clone().map(|(x, _)| x));
            let (sum, count) = all
                .filter(|&(x, _)| agrees(x, positive))
                .fold((0.0, 0.0_f64), |(sum, count), (x, w)| {
                    (sum + w * x, count + 1.0)
                });
            sum / count.max(1.0)
        })
        .collect()
}

/// TIES as mergekit has it (`generalized_task_arithmetic.py`): the sign is elected with the weights,
/// and the weighted sum of what agrees is divided by the weights that agree when `normalize`.
#[must_use]
pub fn sign_consensus(
    tensors: &[&[f64]],
    weights: &[f64],
    majority: Majority,
    normalize: bool,
) -> Vec<f64> {
    (0..length(tensors))
        .map(|at| {
            let all = entries(tensors, weights, at).map(|(x, w)| (w * x, w));
            let positive = majority.positive(all.clone().map(|(x, _)| x));
            let (sum, divisor) = all
                .filter(|&(x, _)| agrees(x, positive))
                .fold((0.0, 0.0), |(sum, divisor), (x, w)| (sum + x, divisor + w));
            if normalize && divisor != 0.0 {
                sum / divisor
            } else {
                sum
            }
        })
        .collect()
}

/// The weighted sum divided by `total`, the sum of the weights, unless that is zero (mergekit's
/// `normalize` without a sign election).
#[must_use]
pub fn weighted_mean(tensors: &[&[f64]], weights: &[f64], total: f64) -> Vec<f64> {
    let mut sum = weighted_sum(tensors, weights);
    // mergekit's threshold.
    if total.abs() >= 1e-8 {
        sum.iter_mut().for_each(|x| *x /= total);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &[f64] = &[1.0, -2.0, 0.0, 3.0];
    const Y: &[f64] = &[2.0, 1.0, 0.0, -3.0];
    const Z: &[f64] = &[-1.0, 0.5, 0.0, -1.0];

    #[test]
    fn peft_elects_without_weights_and_divides_by_the_count() {
        let merged = disjoint_mean(&[X, Y, Z], &[1.0, 10.0, -1.0], Majority::Total);
        assert_eq!(merged, [(1.0 + 20.0) / 2.0, -2.0, 0.0, (-30.0 + 1.0) / 2.0]);
        let merged = disjoint_mean(&[X, Y, Z], &[1.0, 1.0, 1.0], Majority::Frequency);
        assert_eq!(merged, [1.5, 0.75, 0.0, -2.0]);
    }

    #[test]
    fn mergekit_elects_with_weights_and_divides_by_them() {
        let merged = sign_consensus(&[X, Y, Z], &[1.0, 3.0, -1.0], Majority::Total, true);
        // The weighted values are [1, 6, 1], [-2, 3, -0.5], zeros, [3, -9, 1].
        assert_eq!(merged, [8.0 / 3.0, 1.0, 0.0, -3.0]);
        let merged = sign_consensus(&[X, Y, Z], &[1.0, 3.0, -1.0], Majority::Total, false);
        assert_eq!(merged, [8.0, 3.0, 0.0, -9.0]);
        // Weights of opposite signs that add up to zero divide nothing.
        let merged = sign_consensus(&[&[1.0], &[-1.0]], &[1.0, -1.0], Majority::Total, true);
        assert_eq!(merged, [2.0]);
    }

    #[test]
    fn sums_and_means_are_weighted() {
        assert_eq!(weighted_sum(&[X, Y], &[2.0, 1.0]), [4.0, -3.0, 0.0, 3.0]);
        assert_eq!(
            weighted_mean(&[X, Y], &[2.0, 1.0], 4.0),
            [1.0, -0.75, 0.0, 0.75]
        );
        assert_eq!(
            weighted_mean(&[X, Y], &[1.0, -1.0], 0.0),
            [-1.0, -3.0, 0.0, 6.0]
        );
        assert_eq!(weighted_sum(&[], &[]), [0.0; 0]);
    }
}
