//! Precision, recall and F.

use serde::{Deserialize, Serialize};

/// A ROUGE score; each part lies in `0..=1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// What the two texts have in common over what the prediction has.
    pub precision: f64,
    /// What the two texts have in common over what the target has.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub fmeasure: f64,
}

impl Score {
    /// The score of `common` units (tokens or n-grams) between a target and a prediction that have so many; zero if
    /// either has none.
    ///
    /// The order of the operations is that of `rouge_score` 0.1.2 (`rouge_scorer._score_lcs`, `scoring.fmeasure`). It
    /// decides ties: 4 of 5 and 5 tokens gives 0.8000000000000002, 4 of 4 and 6 gives 0.8.
    pub(crate) fn from_common(common: usize, target: usize, prediction: usize) -> Self {
        Self::from_common_beta(common, target, prediction, 1.0)
    }

    /// The same with the F of [`f_beta`](Self::f_beta).
    pub(crate) fn from_common_beta(
        common: usize,
        target: usize,
        prediction: usize,
        beta: f64,
    ) -> Self {
        if target == 0 || prediction == 0 {
            return Self::default();
        }
        let mut score = Self {
            precision: common as f64 / prediction as f64,
            recall: common as f64 / target as f64,
            fmeasure: 0.0,
        };
        score.fmeasure = score.f_beta(beta);
        score
    }

    /// `F = (1 + beta²) P R / (beta² P + R)` of Lin 2004, equation 4: `beta` above 1 favours recall, 0 leaves precision
    /// alone. For `beta` 1 the same bits as [`fmeasure`](Self::fmeasure); 0 if precision or recall is.
    pub fn f_beta(&self, beta: f64) -> f64 {
        let square = beta * beta;
        if self.precision > 0.0 && self.recall > 0.0 {
            (1.0 + square) * self.precision * self.recall / (square * self.precision + self.recall)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_fall_as_the_floats_do() {
        assert_eq!(
            Score::from_common(4, 5, 5).fmeasure,
            0.800_000_000_000_000_2
        );
        assert_eq!(
            Score::from_common(8, 10, 10).fmeasure,
            0.800_000_000_000_000_2
        );
        assert_eq!(Score::from_common(4, 4, 6).fmeasure, 0.8);
    }

    #[test]
    fn beta_one_has_the_bits_of_the_harmonic_mean() {
        for target in 1..60 {
            for prediction in 1..60 {
                for common in 1..=target.min(prediction) {
                    let score = Score::from_common(common, target, prediction);
                    let (p, r) = (score.precision, score.recall);
                    assert_eq!(score.fmeasure.to_bits(), (2.0 * p * r / (p + r)).to_bits());
                }
            }
        }
    }

    #[test]
    fn beta_weighs_recall() {
        let score = Score::from_common(2, 10, 4);
        assert_eq!(score.f_beta(0.0), score.precision);
        assert!((score.f_beta(2.0) - 10.0 / 44.0).abs() < 1e-15);
        assert!((score.f_beta(1000.0) - score.recall).abs() < 1e-6);
        assert_eq!(Score::default().f_beta(3.0), 0.0);
    }
}
