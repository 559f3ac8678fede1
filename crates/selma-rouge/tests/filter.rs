//! The filter against a comparison with every kept text.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use proptest::prelude::*;
use selma_rouge::{DiversityFilter, Nearest, RougeError, Tokenizer, Verdict, rouge_l};

/// What the filter promises, with neither bounds nor sketches.
fn by_brute_force<'a>(
    kept: impl Iterator<Item = &'a str>,
    text: &str,
    tokenizer: Tokenizer,
) -> Option<Nearest> {
    let mut best: Option<Nearest> = None;
    for (id, target) in kept.enumerate() {
        let score = rouge_l(target, text, tokenizer);
        if score.fmeasure > best.map_or(0.0, |best| best.score.fmeasure) {
            best = Some(Nearest { id, score });
        }
    }
    best
}

/// Offers every text, and checks each verdict against the brute force.
fn check(texts: &[String], threshold: f64, tokenizer: Tokenizer) {
    let mut filter = DiversityFilter::new(threshold, tokenizer).unwrap();
    for text in texts {
        let expected = by_brute_force(filter.iter(), text, tokenizer);
        assert_eq!(filter.nearest(text), expected, "{text:?}");
        let before = filter.len();
        let verdict = filter.offer(text);
        match expected {
            Some(nearest) if nearest.score.fmeasure > threshold => {
                assert_eq!(verdict, Verdict::Rejected { nearest }, "{text:?}");
                assert_eq!(filter.len(), before);
            }
            _ => {
                assert_eq!(verdict, Verdict::Kept { id: before }, "{text:?}");
                assert_eq!(filter.get(before), Some(text.as_str()));
            }
        }
    }
}

/// `lcs` common words, then words that no other text has.
fn text_with(lcs: usize, length: usize, own: &str) -> String {
    let common = (0..lcs).map(|i| format!("w{i}"));
    let rest = (lcs..length).map(|i| format!("{own}{i}"));
    common.chain(rest).collect::<Vec<_>>().join(" ")
}

#[test]
fn exact_ties_fall_as_in_rouge_score() {
    // F is exactly 0.8 in all; the floats of the first three are a bit greater.
    for (lcs, target_len, prediction_len, kept) in [
        (4, 5, 5, false),
        (8, 10, 10, false),
        (12, 13, 17, false),
        (4, 4, 6, true),
        (2, 2, 3, true),
    ] {
        let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
        filter.insert(&text_with(lcs, target_len, "x"));
        let verdict = filter.offer(&text_with(lcs, prediction_len, "y"));
        assert_eq!(
            verdict.is_kept(),
            kept,
            "{lcs} of {target_len} and {prediction_len}"
        );
    }
}

#[test]
fn the_first_of_equally_near_texts_is_named() {
    // F is 0.5 with either: 1 of 2 tokens, and 2 of 6.
    let (short, long) = ("a c", "a b w x y z");
    for texts in [["s t", short, long, short], ["s t", long, short, short]] {
        let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
        for text in texts {
            filter.insert(text);
        }
        let nearest = filter.nearest("a b").unwrap();
        assert_eq!(nearest.id, 1);
        assert_eq!(nearest.score, rouge_l(texts[1], "a b", Tokenizer::Rouge));
        assert_eq!(nearest.score.fmeasure, 0.5);
    }
}

#[test]
fn texts_without_tokens_are_always_kept() {
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    for id in 0..3 {
        assert_eq!(filter.offer("猫"), Verdict::Kept { id });
    }
    assert_eq!(filter.offer("a cat"), Verdict::Kept { id: 3 });
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Unicode).unwrap();
    assert!(filter.offer("猫").is_kept());
    assert_eq!(
        filter.offer("猫").nearest().map(|nearest| nearest.id),
        Some(0)
    );
    assert_eq!(filter.len(), 1);
}

#[test]
fn insertion_is_unconditional_and_rejection_leaves_no_trace() {
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    assert!(filter.is_empty());
    assert_eq!(filter.insert("a red cube"), 0);
    assert_eq!(filter.insert("a red cube"), 1);
    assert!(!filter.offer("A red cube!").is_kept());
    assert_eq!(
        filter.iter().collect::<Vec<_>>(),
        ["a red cube", "a red cube"]
    );
    assert_eq!(filter.get(2), None);
    assert_eq!(filter.nearest("green"), None);
}

#[test]
fn at_threshold_one_copies_are_kept() {
    let mut filter = DiversityFilter::new(1.0, Tokenizer::Rouge).unwrap();
    assert!(filter.offer("a b").is_kept());
    assert!(filter.offer("a b").is_kept());
}

#[test]
fn thresholds_out_of_range_are_refused() {
    for found in [0.0, -0.5, 1.000_001, f64::INFINITY, f64::NEG_INFINITY] {
        let error = DiversityFilter::new(found, Tokenizer::Rouge).unwrap_err();
        assert!(matches!(error, RougeError::Threshold { found: f } if f == found));
    }
    let error = DiversityFilter::new(f64::NAN, Tokenizer::Rouge).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the threshold must be greater than 0 and at most 1, found NaN"
    );
}

/// Few words, so that texts repeat each other and themselves, and lengths past one 64-bit word.
fn texts(longest: usize) -> impl Strategy<Value = Vec<String>> {
    let word = prop::sample::select(vec!["a", "b", "c", "d", "e", "Ff", "猫"]);
    let text = prop::collection::vec(word, 0..longest).prop_map(|words| words.join(" "));
    prop::collection::vec(text, 0..40)
}

/// A base text and copies with one or two words changed, around the threshold.
fn near_texts() -> impl Strategy<Value = Vec<String>> {
    let edit = (0_usize..12, 0_usize..12, 0_usize..30, any::<bool>());
    prop::collection::vec(edit, 1..60).prop_map(|edits| {
        let base: Vec<String> = (0..10).map(|i| format!("w{i}")).collect();
        let change = |(at, second, word, insert): (usize, usize, usize, bool)| {
            let mut words = base.clone();
            for at in [at, second] {
                match words.get_mut(at) {
                    Some(slot) => *slot = format!("n{word}"),
                    None if insert => words.push(format!("n{word}")),
                    None => drop(words.pop()),
                }
            }
            words.join(" ")
        };
        edits.into_iter().map(change).collect()
    })
}

proptest! {
    #[test]
    fn equals_brute_force(texts in texts(14), threshold in 0.2_f64..1.0) {
        check(&texts, threshold, Tokenizer::Rouge);
        check(&texts, threshold, Tokenizer::Unicode);
    }

    #[test]
    fn equals_brute_force_around_the_threshold(texts in near_texts()) {
        check(&texts, 0.8, Tokenizer::Rouge);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equals_brute_force_on_long_texts(texts in texts(140)) {
        check(&texts, 0.8, Tokenizer::Rouge);
    }
}
