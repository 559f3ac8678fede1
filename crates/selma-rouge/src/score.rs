//! ROUGE-L of two texts.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::Tokenizer;
use crate::lcs::Pattern;

/// A ROUGE-L score; each part lies in `0..=1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Length of the longest common subsequence over the number of tokens in the prediction.
    pub precision: f64,
    /// Length of the longest common subsequence over the number of tokens in the target.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub fmeasure: f64,
}

impl Score {
    /// The score of a common subsequence of `lcs` tokens between a target and a prediction of the given lengths.
    ///
    /// The order of the operations is that of `rouge_score` 0.1.2 (`rouge_scorer._score_lcs`, `scoring.fmeasure`). It
    /// decides ties: 4 of 5 and 5 tokens gives 0.8000000000000002, 4 of 4 and 6 gives 0.8.
    pub(crate) fn from_lcs(lcs: usize, target_len: usize, prediction_len: usize) -> Self {
        if target_len == 0 || prediction_len == 0 {
            return Self::default();
        }
        let precision = lcs as f64 / prediction_len as f64;
        let recall = lcs as f64 / target_len as f64;
        let fmeasure = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        Self {
            precision,
            recall,
            fmeasure,
        }
    }
}

/// ROUGE-L of `prediction` against `target` (Lin 2004, section 3), with [`Tokenizer::Rouge`] the same bits as
/// `rouge_scorer.RougeScorer(["rougeL"]).score(target, prediction)` of Python's `rouge_score` 0.1.2.
///
/// A text without tokens scores zero against everything, itself included.
pub fn rouge_l(target: &str, prediction: &str, tokenizer: Tokenizer) -> Score {
    let mut vocabulary = HashMap::new();
    let mut encode = |text| -> Vec<u32> {
        let mut ids = Vec::new();
        for token in tokenizer.tokenize(text) {
            let next = vocabulary.len() as u32;
            ids.push(*vocabulary.entry(token).or_insert(next));
        }
        ids
    };
    let (target, prediction) = (encode(target), encode(prediction));
    let lcs = Pattern::new(&prediction).lcs_len(&target);
    Score::from_lcs(lcs, target.len(), prediction.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_over_the_prediction() {
        let score = rouge_l("testing one two", "testing", Tokenizer::Rouge);
        assert_eq!(
            score,
            Score {
                precision: 1.0,
                recall: 1.0 / 3.0,
                fmeasure: 0.5
            }
        );
    }

    #[test]
    fn ties_fall_as_the_floats_do() {
        assert_eq!(Score::from_lcs(4, 5, 5).fmeasure, 0.800_000_000_000_000_2);
        assert_eq!(Score::from_lcs(8, 10, 10).fmeasure, 0.800_000_000_000_000_2);
        assert_eq!(Score::from_lcs(4, 4, 6).fmeasure, 0.8);
    }

    #[test]
    fn nothing_in_common_is_zero() {
        for (target, prediction) in [("", ""), ("a", ""), ("", "a"), ("a", "b"), ("猫", "猫")] {
            assert_eq!(
                rouge_l(target, prediction, Tokenizer::Rouge),
                Score::default()
            );
        }
        assert_eq!(rouge_l("猫", "猫", Tokenizer::Unicode).fmeasure, 1.0);
    }
}
