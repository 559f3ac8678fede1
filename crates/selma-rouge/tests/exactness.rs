//! The filter against a comparison with every kept text that shares no code with it but the length of the common
//! subsequence: on texts enough to be ranked several times, with removals, in batches, and for any F.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in the helpers of a test a failure is the result"
)]

mod common;

use std::collections::HashMap;

use common::Random;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use selma_rouge::{
    DiversityFilter, FilterConfig, Nearest, Tokenizer, Verdict, WithoutTokens, lcs_len,
};

/// Texts of `shortest..=longest` words, the common ones more frequent, half of them changed copies of others.
fn corpus(seed: u64, count: usize, words: usize, [shortest, longest]: [usize; 2]) -> Vec<String> {
    let mut random = Random(seed);
    let mut texts: Vec<Vec<usize>> = Vec::new();
    for _ in 0..count {
        let word = |random: &mut Random| random.below(words).min(random.below(words));
        let text = if texts.is_empty() || random.below(2) == 0 {
            let length = shortest + random.below(longest - shortest + 1);
            (0..length).map(|_| word(&mut random)).collect()
        } else {
            let mut copy = texts[random.below(texts.len())].clone();
            for _ in 0..random.below(1 + copy.len() / 3) {
                let at = random.below(copy.len());
                match random.below(3) {
                    0 => drop(copy.remove(at)),
                    1 => copy[at] = word(&mut random),
                    _ => copy.insert(at, word(&mut random)),
                }
            }
            copy
        };
        texts.push(text);
    }
    let render = |text: Vec<usize>| {
        let words: Vec<String> = text.into_iter().map(|word| format!("w{word}")).collect();
        words.join(" ")
    };
    texts.into_iter().map(render).collect()
}

/// What the filter promises.
struct Reference {
    config: FilterConfig,
    numbers: HashMap<String, u32>,
    /// The texts ever kept; `None` for one that was removed.
    kept: Vec<Option<(String, Vec<u32>)>>,
}

impl Reference {
    fn new(config: FilterConfig) -> Self {
        Self {
            config,
            numbers: HashMap::new(),
            kept: Vec::new(),
        }
    }

    fn tokens(&mut self, text: &str) -> Vec<u32> {
        let number = |token| {
            let next = self.numbers.len() as u32;
            *self.numbers.entry(token).or_insert(next)
        };
        let tokens = self.config.tokenizer.tokenize(text);
        tokens.into_iter().map(number).collect()
    }

    /// Number and F of the nearest.
    fn nearest(&mut self, text: &str) -> Option<(usize, f64)> {
        let tokens = self.tokens(text);
        let mut best = None;
        for (id, kept) in self.kept.iter().enumerate() {
            let Some((_, kept)) = kept else { continue };
            let lcs = lcs_len(&tokens, kept) as f64;
            let (p, r) = (lcs / tokens.len() as f64, lcs / kept.len() as f64);
            let square = self.config.beta * self.config.beta;
            let f = (1.0 + square) * p * r / (square * p + r);
            // Not a number where nothing is in common, and then not greater.
            if f > best.map_or(0.0, |(_, f)| f) {
                best = Some((id, f));
            }
        }
        best
    }

    fn offer(&mut self, text: &str) -> Result<usize, (usize, f64)> {
        match self.nearest(text) {
            Some(nearest) if nearest.1 > self.config.threshold => Err(nearest),
            _ => {
                let tokens = self.tokens(text);
                self.kept.push(Some((text.to_owned(), tokens)));
                Ok(self.kept.len() - 1)
            }
        }
    }
}

fn short(nearest: Nearest) -> (usize, f64) {
    (nearest.id, nearest.score.fmeasure)
}

fn plain(verdict: Verdict) -> Result<usize, (usize, f64)> {
    match verdict {
        Verdict::Kept { id } => Ok(id),
        Verdict::Rejected { nearest } => Err(short(nearest)),
    }
}

/// Offers the texts, and between them inserts, removes and looks for nearest ones.
fn check(config: FilterConfig, texts: &[String], seed: u64, removals: bool) {
    let mut filter = DiversityFilter::with_config(config).unwrap();
    let mut reference = Reference::new(config);
    let mut random = Random(seed);
    for text in texts {
        match random.below(if removals { 20 } else { 18 }) {
            0 => assert_eq!(filter.nearest(text).map(short), reference.nearest(text)),
            1 => {
                let tokens = reference.tokens(text);
                reference.kept.push(Some((text.clone(), tokens)));
                assert_eq!(filter.insert(text), reference.kept.len() - 1);
            }
            18.. => {
                for _ in 0..=random.below(12) {
                    let id = random.below(reference.kept.len() + 1);
                    let there = reference
                        .kept
                        .get_mut(id)
                        .is_some_and(|kept| kept.take().is_some());
                    assert_eq!(filter.remove(id), there);
                    assert_eq!(filter.get(id), None);
                }
            }
            _ => {}
        }
        assert_eq!(
            plain(filter.offer(text)),
            reference.offer(text),
            "{config:?} {text}"
        );
    }
    let kept: Vec<&str> = reference
        .kept
        .iter()
        .flatten()
        .map(|(text, _)| text.as_str())
        .collect();
    assert_eq!(filter.iter().collect::<Vec<_>>(), kept);
    assert_eq!(filter.len(), kept.len());
}

fn configs() -> impl Strategy<Value = FilterConfig> {
    let threshold = prop::sample::select(vec![0.1, 0.5, 0.7, 0.8, 0.8, 0.8, 0.9, 1.0]);
    let beta = prop::sample::select(vec![0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 1000.0]);
    (threshold, beta).prop_map(|(threshold, beta)| FilterConfig {
        threshold,
        beta,
        ..FilterConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn prompts(config in configs(), seed: u64, words in 8_usize..400, removals: bool) {
        check(config, &corpus(seed, 1500, words, [0, 14]), seed, removals);
    }

    #[test]
    fn around_one_word_of_bits(config in configs(), seed: u64, words in 8_usize..400) {
        check(config, &corpus(seed, 300, words, [58, 70]), seed, true);
    }

    #[test]
    fn of_every_length(config in configs(), seed: u64, words in 8_usize..2000) {
        check(config, &corpus(seed, 120, words, [0, 600]), seed, true);
    }

    #[test]
    fn batches(seed: u64, words in 30_usize..2000, size in 1_usize..3000, threads in 1_usize..5) {
        let texts = corpus(seed, 4000, words, [0, 14]);
        let mut one_by_one = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
        let expected: Vec<Verdict> = texts.iter().map(|text| one_by_one.offer(text)).collect();
        let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found: Vec<Verdict> = pool.install(|| {
            let batches = texts.chunks(size);
            batches.flat_map(|batch| filter.offer_batch(batch)).collect()
        });
        prop_assert_eq!(found, expected);
        prop_assert!(filter.iter().eq(one_by_one.iter()));
    }
}

#[test]
fn a_batch_longer_than_a_block() {
    let texts = corpus(7, 20_000, 3000, [0, 14]);
    let mut one_by_one = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    let expected: Vec<Verdict> = texts.iter().map(|text| one_by_one.offer(text)).collect();
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    assert_eq!(filter.offer_batch(&texts), expected);
    assert_eq!(filter.offer_batch::<&str>(&[]), []);
}

#[test]
fn removed_texts_reject_nothing_and_their_numbers_are_not_reused() {
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    assert!(filter.offer("a red cube").is_kept());
    assert!(!filter.offer("A red cube.").is_kept());
    assert!(filter.remove(0));
    assert!(!filter.remove(0));
    assert!(!filter.remove(1));
    assert!(filter.is_empty());
    assert_eq!(filter.nearest("a red cube"), None);
    assert_eq!(filter.offer("A red cube."), Verdict::Kept { id: 1 });
    assert_eq!(filter.get(0), None);
}

#[test]
fn texts_without_tokens_by_policy() {
    let mut filter = DiversityFilter::with_config(FilterConfig {
        without_tokens: WithoutTokens::Distinct,
        ..FilterConfig::default()
    })
    .unwrap();
    let verdicts = filter.offer_batch(&["猫", "a cat", "犬", "猫", ""]);
    let kept: Vec<bool> = verdicts.iter().map(Verdict::is_kept).collect();
    assert_eq!(kept, [true, true, true, false, true]);
    let nearest = verdicts[3].nearest().unwrap();
    assert_eq!((nearest.id, nearest.score.fmeasure), (0, 1.0));
    assert!(!filter.offer("").is_kept());
    assert!(filter.remove(0));
    assert_eq!(filter.offer("猫"), Verdict::Kept { id: 4 });
    assert_eq!(filter.nearest("犬"), None);
}

#[test]
fn odd_and_huge_texts() {
    for tokenizer in [
        Tokenizer::Rouge,
        Tokenizer::RougeStemmed,
        Tokenizer::Unicode,
    ] {
        let mut filter = DiversityFilter::new(0.8, tokenizer).unwrap();
        // More tokens than an entry of the index counts.
        let huge: String = (0..70_000)
            .map(|i| format!("{} ", i * i % 99_991))
            .collect();
        assert!(filter.offer(&huge).is_kept());
        assert!(!filter.offer(&format!("{huge} and more")).is_kept());
        assert!(filter.offer(&huge[..huge.len() / 2]).is_kept());
        let one_word = "x".repeat(1_000_000);
        assert!(filter.offer(&one_word).is_kept());
        assert!(!filter.offer(&one_word).is_kept());
        for text in ["a\0b\r\nc", "\u{feff}a b c d e f"] {
            assert!(filter.offer(text).is_kept());
            assert!(!filter.offer(text).is_kept());
        }
    }
}
