//! McNemar's test for two models that are right or wrong on the same things.

use serde::{Deserialize, Serialize};
use statrs::{
    distribution::{Binomial, DiscreteCDF},
    function::erf::erfc,
};

use crate::EvalError;

/// McNemar's test (1947): do the two models differ in how often they are right? Only the things on which one is right
/// and the other wrong count.
///
/// It takes them as independent of each other, which several questions about one picture are not: there the permutation
/// test of [`Bootstrap::paired`](super::Bootstrap::paired) is the one to trust.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McNemar {
    /// Things that only the first model has right.
    pub only_first: u64,
    /// Things that only the second model has right.
    pub only_second: u64,
    /// Two-sided p-value of the exact test: a fair coin for each thing they differ on.
    pub p_exact: f64,
    /// Chi-square with Edwards' continuity correction, of one degree of freedom: `(|first - second| - 1)² / (first + second)`,
    /// and 0 where the two are equal.
    pub chi_square: f64,
    /// Its p-value, an approximation that takes at least 25 things they differ on.
    pub p_chi_square: f64,
}

impl McNemar {
    /// The test of the two counts.
    pub fn new(only_first: u64, only_second: u64) -> Self {
        let differ = only_first.saturating_add(only_second);
        let fewer = only_first.min(only_second);
        // The coin is fair, so that both tails are equal. It exists: a half is a probability.
        let tail = Binomial::new(0.5, differ).map_or(1.0, |coin| coin.cdf(fewer));
        let distance = only_first.abs_diff(only_second).saturating_sub(1) as f64;
        let chi_square = if differ == 0 {
            0.0
        } else {
            distance.powi(2) / differ as f64
        };
        Self {
            only_first,
            only_second,
            p_exact: (2.0 * tail).min(1.0),
            chi_square,
            p_chi_square: erfc((chi_square / 2.0).sqrt()),
        }
    }

    /// The test of two models' verdicts on the same things in the same order.
    ///
    /// # Errors
    /// [`EvalError::Unpaired`] for different numbers of things.
    pub fn paired(first: &[bool], second: &[bool]) -> Result<Self, EvalError> {
        if first.len() != second.len() {
            return Err(EvalError::Unpaired {
                a: first.len(),
                b: second.len(),
            });
        }
        let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count();
        Ok(Self::new(
            only(first, second) as u64,
            only(second, first) as u64,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_counts() {
        let first = [true, true, true, false, false, true];
        let second = [true, false, false, false, true, false];
        let test = McNemar::paired(&first, &second).unwrap();
        assert_eq!((test.only_first, test.only_second), (3, 1));
        // Of the 16 throws of four coins, 5 on either side are as extreme.
        assert!((test.p_exact - 10.0 / 16.0).abs() < 1e-12, "{test:?}");
        assert_eq!(test.chi_square, 0.25);
        let error = McNemar::paired(&first, &second[1..]).unwrap_err();
        assert!(
            matches!(error, EvalError::Unpaired { a: 6, b: 5 }),
            "{error}"
        );
    }

    #[test]
    fn equal_models_have_p_one() {
        for count in [0, 1, 40] {
            let test = McNemar::new(count, count);
            assert_eq!(
                (test.p_exact, test.chi_square, test.p_chi_square),
                (1.0, 0.0, 1.0),
                "{count}"
            );
        }
    }
}
