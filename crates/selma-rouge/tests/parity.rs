//! ROUGE-L against Python's `rouge_score`, bit for bit, on values in a fixture.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use selma_rouge::{Score, Tokenizer, rouge_l};

fn bits(score: Score) -> [u64; 3] {
    [score.precision, score.recall, score.fmeasure].map(f64::to_bits)
}

#[test]
fn equals_rouge_score_on_its_own_values() {
    let json = include_str!("fixtures/rouge_l.json");
    let rows: Vec<(String, String, String, String, String)> = serde_json::from_str(json).unwrap();
    assert!(rows.len() > 300);
    for (target, prediction, precision, recall, fmeasure) in rows {
        let expected =
            [precision, recall, fmeasure].map(|hex| u64::from_str_radix(&hex, 16).unwrap());
        let found = rouge_l(&target, &prediction, Tokenizer::Rouge);
        assert_eq!(
            bits(found),
            expected,
            "target {target:?}, prediction {prediction:?}: {found:?}"
        );
    }
}
