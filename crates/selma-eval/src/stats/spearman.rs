//! Spearman's rank correlation.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Bootstrap, Correlation, correlation::correlate};
use crate::EvalError;

/// Spearman's rho: the correlation of the ranks, equal values sharing the mean of theirs. The p-value is that of Student's t
/// with n - 2 degrees of freedom, as in `scipy.stats.spearmanr`.
///
/// # Errors
/// [`EvalError::Unpaired`] for different numbers of values; [`EvalError::Sample`] for fewer than three pairs, a value
/// that is not finite, or values that are all equal; [`EvalError::Setting`] for bootstrap settings that make no sense.
pub fn spearman(x: &[f64], y: &[f64], bootstrap: &Bootstrap) -> Result<Correlation, EvalError> {
    correlate(x, y, bootstrap, rho, |pairs, rho| p_value(rho, pairs.len()))
}

fn rho(pairs: &[(f64, f64)]) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (x, y) = (centred_ranks(&x), centred_ranks(&y));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = product(&x, &x).sqrt() * product(&y, &y).sqrt();
    (scale > 0.0).then(|| (product(&x, &y) / scale).clamp(-1.0, 1.0))
}

/// The rank of each value, minus the mean of all ranks.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut ordered: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    ordered.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let mean = (values.len() as f64 + 1.0) / 2.0;
    let mut ranks = Vec::with_capacity(values.len());
    let mut before = 0;
    for equal in ordered.chunk_by(|(_, a), (_, b)| a == b) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0 - mean;
        ranks.extend(equal.iter().map(|(index, _)| (*index, rank)));
        before += equal.len();
    }
    ranks.sort_by_key(|(index, _)| *index);
    ranks.into_iter().map(|(_, rank)| rank).collect()
}

fn p_value(rho: f64, n: usize) -> f64 {
    let freedom = n as f64 - 2.0;
    let t = rho * (freedom / ((1.0 + rho) * (1.0 - rho))).sqrt();
    // At rho = 1 or -1, t is infinite.
    if t.is_infinite() {
        return 0.0;
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |student| 2.0 * student.sf(t.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(
            centred_ranks(&[10.0, 30.0, 20.0, 20.0, 0.0]),
            [-1.0, 2.0, 0.5, 0.5, -2.0]
        );
        // A negative zero is a zero.
        assert_eq!(centred_ranks(&[0.0, -0.0, 1.0]), [-0.5, -0.5, 1.0]);
    }
}
