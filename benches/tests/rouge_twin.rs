//! ROUGE-L against `rougers`, the Rust twin of Python's `rouge_score`, bit for bit on random texts.
//!
//! The test stands here and not in selma-rouge because the twin's dependencies would have all others compiled again.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use proptest::prelude::*;
use rougers::RougeScorer;
use selma_rouge::{Score, Tokenizer, rouge_l};

fn bits(score: Score) -> [u64; 3] {
    [score.precision, score.recall, score.fmeasure].map(f64::to_bits)
}

fn twin(target: &str, prediction: &str) -> [u64; 3] {
    let scorer = RougeScorer::new(["rougeL"], false).unwrap();
    let scores = scorer.score(target, prediction);
    let (_, score) = scores.iter().next().unwrap();
    [score.precision, score.recall, score.fmeasure].map(f64::to_bits)
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["a", "red", "Cat", "on", "the", "mat,", "3.5", "don't"]),
        0..90,
    )
    .prop_map(|words| words.join(" "))
}

/// A pattern of texts with every kind of character that the tokenizer tells apart.
const MIXED: &str = "[a-cA-C\u{130}\u{212A}Σςé_ 0-1猫]{0,40}";

proptest! {
    #[test]
    fn equals_the_twin_on_words(target in words(), prediction in words()) {
        prop_assert_eq!(bits(rouge_l(&target, &prediction, Tokenizer::Rouge)), twin(&target, &prediction));
    }

    #[test]
    fn equals_the_twin_on_any_text(target in MIXED, prediction in MIXED) {
        prop_assert_eq!(bits(rouge_l(&target, &prediction, Tokenizer::Rouge)), twin(&target, &prediction));
    }
}
