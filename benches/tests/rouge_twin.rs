//! ROUGE-1, -2, -L and -Lsum against `rougers`, the Rust twin of Python's `rouge_score`, bit for bit on random texts.
//!
//! The test stands here and not in selma-rouge because the twin's dependencies would have all others compiled again.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::num::NonZeroUsize;

use proptest::prelude::*;
use rougers::RougeScorer;
use selma_rouge::{Score, Tokenizer, rouge_l, rouge_lsum, rouge_n};

fn bits(score: Score) -> [u64; 3] {
    [score.precision, score.recall, score.fmeasure].map(f64::to_bits)
}

fn twin(kind: &str, stemmed: bool, target: &str, prediction: &str) -> [u64; 3] {
    let scorer = RougeScorer::new([kind], stemmed).unwrap();
    let scores = scorer.score(target, prediction);
    let (_, score) = scores.iter().next().unwrap();
    [score.precision, score.recall, score.fmeasure].map(f64::to_bits)
}

fn check(target: &str, prediction: &str) -> Result<(), TestCaseError> {
    let two = NonZeroUsize::MIN.saturating_add(1);
    for (tokenizer, stemmed) in [(Tokenizer::Rouge, false), (Tokenizer::RougeStemmed, true)] {
        for (kind, score) in [
            (
                "rouge1",
                rouge_n(NonZeroUsize::MIN, target, prediction, tokenizer),
            ),
            ("rouge2", rouge_n(two, target, prediction, tokenizer)),
            ("rougeL", rouge_l(target, prediction, tokenizer)),
            ("rougeLsum", rouge_lsum(target, prediction, tokenizer)),
        ] {
            let twin = twin(kind, stemmed, target, prediction);
            prop_assert_eq!(bits(score), twin, "{} {}", kind, stemmed);
        }
    }
    Ok(())
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "a", "red", "Cat", "cats", "running", "ponies", "on", "the", "mat,", "3.5", "don't",
            "\n",
        ]),
        0..90,
    )
    .prop_map(|words| words.join(" "))
}

/// A pattern of texts with every kind of character that the tokenizer tells apart.
const MIXED: &str = "[a-cA-C\u{130}\u{212A}Σςé_ 0-1猫\n]{0,40}";

proptest! {
    #[test]
    fn equals_the_twin_on_words(target in words(), prediction in words()) {
        check(&target, &prediction)?;
    }

    #[test]
    fn equals_the_twin_on_any_text(target in MIXED, prediction in MIXED) {
        check(&target, &prediction)?;
    }
}
