//! Kendall's rank correlation.

use statrs::function::erf::erfc;

use super::{
    Bootstrap, Correlation,
    correlation::{correlate, ties},
};
use crate::EvalError;

/// Kendall's tau-b: pairs of pairs in the same order minus those in the opposite order, over the geometric mean of those
/// that are not tied in x and those that are not tied in y. By Knight's algorithm (1966), in n log n steps.
///
/// The p-value is that of the normal approximation with the variance for ties, as in `scipy.stats.kendalltau` with
/// `method="asymptotic"`; it is rough below ten pairs.
///
/// # Errors
/// As [`spearman`](super::spearman).
pub fn kendall(x: &[f64], y: &[f64], bootstrap: &Bootstrap) -> Result<Correlation, EvalError> {
    let tau = |pairs: &[(f64, f64)]| Counts::of(pairs).tau();
    correlate(x, y, bootstrap, tau, |pairs, _| Counts::of(pairs).p_value())
}

/// Pairs of pairs, and how they are tied.
struct Counts {
    n: f64,
    all: f64,
    tied_x: Ties,
    tied_y: Ties,
    concordant_minus_discordant: f64,
}

/// Sums over the groups of equal values, of `t` values each.
struct Ties {
    /// t (t - 1) / 2
    pairs: f64,
    /// t (t - 1) (t - 2)
    triples: f64,
    /// t (t - 1) (2t + 5)
    variance: f64,
}

impl Ties {
    fn of(sorted: &[f64]) -> Self {
        let sum = |term: fn(f64) -> f64| ties(sorted).map(|count| term(count as f64)).sum();
        Self {
            pairs: sum(|t| t * (t - 1.0) / 2.0),
            triples: sum(|t| t * (t - 1.0) * (t - 2.0)),
            variance: sum(|t| t * (t - 1.0) * (2.0 * t + 5.0)),
        }
    }
}

impl Counts {
    fn of(pairs: &[(f64, f64)]) -> Self {
        // So that -0 and 0 are one value, in sorting too.
        let mut pairs: Vec<(f64, f64)> = pairs.iter().map(|(x, y)| (x + 0.0, y + 0.0)).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let tied_both: f64 = pairs
            .chunk_by(|a, b| a == b)
            .map(|equal| (equal.len() * (equal.len() - 1) / 2) as f64)
            .sum();
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let (y, discordant) = sort_counting(y);
        let n = x.len() as f64;
        let all = n * (n - 1.0) / 2.0;
        let (tied_x, tied_y) = (Ties::of(&x), Ties::of(&y));
        let ordered = all - tied_x.pairs - tied_y.pairs + tied_both;
        Self {
            n,
            all,
            tied_x,
            tied_y,
            concordant_minus_discordant: ordered - 2.0 * discordant as f64,
        }
    }

    fn tau(&self) -> Option<f64> {
        let scale = (self.all - self.tied_x.pairs).sqrt() * (self.all - self.tied_y.pairs).sqrt();
        (scale > 0.0).then(|| (self.concordant_minus_discordant / scale).clamp(-1.0, 1.0))
    }

    fn p_value(&self) -> f64 {
        let (n, x, y) = (self.n, &self.tied_x, &self.tied_y);
        let ordered = n * (n - 1.0);
        let variance = (ordered * (2.0 * n + 5.0) - x.variance - y.variance) / 18.0
            + 2.0 * x.pairs * y.pairs / ordered
            + x.triples * y.triples / (9.0 * ordered * (n - 2.0));
        let z = self.concordant_minus_discordant / variance.sqrt();
        erfc(z.abs() / std::f64::consts::SQRT_2)
    }
}

/// The values in order, and how many pairs of them were in the wrong one: merge sort.
fn sort_counting(values: Vec<f64>) -> (Vec<f64>, u64) {
    if values.len() < 2 {
        return (values, 0);
    }
    let mut left = values;
    let right = left.split_off(left.len() / 2);
    let ((left, in_left), (right, in_right)) = (sort_counting(left), sort_counting(right));
    let mut swaps = in_left + in_right;
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let Some(value) = match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b < a => {
            swaps += left.len() as u64;
            right.next()
        }
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    } {
        merged.push(value);
    }
    (merged, swaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_all_pairs() {
        // A small generator of tied numbers; a prime multiplier goes through all residues.
        let numbers = |seed: u64| (1..60_u64).map(move |i| (i * seed % 61 % 7) as f64);
        for (a, b) in [(2, 3), (17, 5), (29, 29), (7, 54)] {
            let pairs: Vec<(f64, f64)> = numbers(a).zip(numbers(b)).collect();
            let mut difference = 0.0;
            for (i, first) in pairs.iter().enumerate() {
                for second in &pairs[..i] {
                    let sign =
                        |a: f64, b: f64| f64::from(u8::from(a > b)) - f64::from(u8::from(a < b));
                    difference += sign(first.0, second.0) * sign(first.1, second.1);
                }
            }
            assert_eq!(
                Counts::of(&pairs).concordant_minus_discordant,
                difference,
                "{a} {b}"
            );
        }
    }
}
