//! ROUGE of two texts.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::lcs::Pattern;
use crate::words::Words;
use crate::{Score, Tokenizer};

/// ROUGE-L of `prediction` against `target` (Lin 2004, section 3), with [`Tokenizer::Rouge`] the same bits as
/// `rouge_scorer.RougeScorer(["rougeL"]).score(target, prediction)` of Python's `rouge_score` 0.1.2.
///
/// A text without tokens scores zero against everything, itself included.
pub fn rouge_l(target: &str, prediction: &str, tokenizer: Tokenizer) -> Score {
    let mut words = Words::default();
    let target = numbers(&mut words, target, tokenizer);
    let prediction = numbers(&mut words, prediction, tokenizer);
    let lcs = Pattern::new(&prediction).lcs_len(target.iter().copied());
    Score::from_common(lcs, target.len(), prediction.len())
}

/// ROUGE-N of `prediction` against `target` (Lin 2004, section 2): the n-grams of `order` tokens that both have, copies
/// included. With [`Tokenizer::Rouge`] the same bits as `rouge1`, `rouge2` and so on of Python's `rouge_score` 0.1.2.
///
/// A text with fewer than `order` tokens scores zero against everything, itself included.
pub fn rouge_n(order: NonZeroUsize, target: &str, prediction: &str, tokenizer: Tokenizer) -> Score {
    let mut words = Words::default();
    let target = numbers(&mut words, target, tokenizer);
    let prediction = numbers(&mut words, prediction, tokenizer);
    let mut unmatched: HashMap<&[u32], usize> = HashMap::new();
    for ngram in target.windows(order.get()) {
        *unmatched.entry(ngram).or_default() += 1;
    }
    let mut common = 0;
    for ngram in prediction.windows(order.get()) {
        if let Some(copies) = unmatched.get_mut(ngram).filter(|copies| **copies > 0) {
            *copies -= 1;
            common += 1;
        }
    }
    let ngrams = |tokens: &[u32]| tokens.windows(order.get()).len();
    Score::from_common(common, ngrams(&target), ngrams(&prediction))
}

/// The tokens of `text` as numbers.
pub(crate) fn numbers(words: &mut Words, text: &str, tokenizer: Tokenizer) -> Vec<u32> {
    let mut numbers = Vec::new();
    tokenizer.for_each(text, |token| numbers.push(words.number(token)));
    numbers
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
    fn ngrams_count_as_often_as_both_have_them() {
        let one = NonZeroUsize::MIN;
        let two = one.saturating_add(1);
        let score = |order| rouge_n(order, "a a a b", "a b a a c", Tokenizer::Rouge);
        assert_eq!(score(one), Score::from_common(4, 4, 5));
        // `a a` and `a b`; the target's second `a a` has no partner.
        assert_eq!(score(two), Score::from_common(2, 3, 4));
        assert_eq!(rouge_n(two, "a", "a", Tokenizer::Rouge), Score::default());
        assert_eq!(
            rouge_n(NonZeroUsize::MAX, "a b", "a b", Tokenizer::Rouge),
            Score::default()
        );
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
