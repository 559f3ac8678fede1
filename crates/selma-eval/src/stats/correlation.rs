//! What rank correlations have in common.

use serde::{Deserialize, Serialize};

use super::Bootstrap;
use crate::EvalError;

/// A rank correlation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correlation {
    /// From -1, opposite orders, to 1, the same order.
    pub coefficient: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Two-sided p-value of the hypothesis that there is none.
    pub p: f64,
    /// Pairs of values.
    pub n: usize,
}

/// The least pairs that a correlation is made of: with two it is always 1 or -1.
const LEAST: usize = 3;

/// Checks the pairs, and puts the coefficient together with the interval over resampled pairs.
pub(super) fn correlate(
    x: &[f64],
    y: &[f64],
    bootstrap: &Bootstrap,
    coefficient: impl Fn(&[(f64, f64)]) -> Option<f64>,
    p_value: impl Fn(&[(f64, f64)], f64) -> f64,
) -> Result<Correlation, EvalError> {
    if x.len() != y.len() {
        return Err(EvalError::Unpaired {
            a: x.len(),
            b: y.len(),
        });
    }
    let wrong = |expected, found: String| EvalError::Sample {
        name: "values to correlate",
        expected,
        found,
    };
    if x.len() < LEAST {
        return Err(wrong("at least 3 pairs", x.len().to_string()));
    }
    if let Some(value) = x.iter().chain(y).find(|value| !value.is_finite()) {
        return Err(wrong("finite numbers", value.to_string()));
    }
    let pairs: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).collect();
    let of = |picked: &[usize]| {
        let picked: Vec<(f64, f64)> = picked
            .iter()
            .filter_map(|&index| pairs.get(index).copied())
            .collect();
        coefficient(&picked)
    };
    let constant = || wrong("values that differ", "the same value throughout".to_owned());
    let found = coefficient(&pairs).ok_or_else(constant)?;
    let interval = bootstrap.interval(pairs.len(), of)?.ok_or_else(constant)?;
    Ok(Correlation {
        coefficient: found,
        low: interval.low,
        high: interval.high,
        p: p_value(&pairs, found),
        n: pairs.len(),
    })
}

/// How many values are equal, for each value that occurs more than once.
pub(super) fn ties(sorted: &[f64]) -> impl Iterator<Item = u64> {
    sorted
        .chunk_by(|a, b| a == b)
        .map(|equal| equal.len() as u64)
        .filter(|count| *count > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{kendall, spearman};

    #[test]
    fn refuses_what_has_no_order() {
        for correlation in [spearman, kendall] {
            let of = |x: &[f64], y: &[f64]| {
                correlation(x, y, &Bootstrap::default())
                    .unwrap_err()
                    .to_string()
            };
            assert!(of(&[1.0, 2.0], &[1.0]).contains("cannot pair"));
            assert!(of(&[1.0, 2.0], &[1.0, 2.0]).contains("at least 3 pairs, found 2"));
            assert!(of(&[1.0, 2.0, f64::NAN], &[1.0; 3]).contains("finite numbers, found NaN"));
            assert!(of(&[1.0, 2.0, 3.0], &[1.0; 3]).contains("values that differ"));
        }
    }

    #[test]
    fn the_same_and_the_opposite_order() {
        let x: Vec<f64> = (0..20).map(f64::from).collect();
        let cubes: Vec<f64> = x.iter().map(|x| x.powi(3)).collect();
        let falling: Vec<f64> = x.iter().map(|x| -x).collect();
        for correlation in [spearman, kendall] {
            let same = correlation(&x, &cubes, &Bootstrap::default()).unwrap();
            for value in [same.coefficient, same.low, same.high] {
                assert!((value - 1.0).abs() < 1e-12, "{same:?}");
            }
            assert!(same.n == 20 && same.p < 1e-6, "{same:?}");
            let opposite = correlation(&x, &falling, &Bootstrap::default()).unwrap();
            assert!((opposite.coefficient + 1.0).abs() < 1e-12, "{opposite:?}");
        }
    }
}
