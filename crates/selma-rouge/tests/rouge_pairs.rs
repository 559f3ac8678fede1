//! All scores against Python's `rouge_score`, and all stems against NLTK, bit for bit, on tens of thousands of texts.
//!
//! `tools/make_rouge_pairs.py` makes the same texts and keeps checksums of what the Python packages say.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in the helpers of a test a failure is the result"
)]

mod common;

use std::num::NonZeroUsize;

use common::Random;
use selma_rouge::{Tokenizer, rouge_l, rouge_lsum, rouge_n};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const CHUNK: usize = 1000;

const BASES: &str = "hop fall relat electr nation happ conflat tann fizz siz troubl gener adopt hope oper vile geo theo \
    control decis l tr sk fl be agr yy syzyg 12 a";
const SUFFIXES: &str = "s es ed ing ies ied y ational tional enci anci izer bli abli alli entli eli ousli ization ation ator \
    alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able \
    ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll eed sses ss at bl iz";
const OTHERS: &str = "a the red cat on table skies dying lying tying news innings inning outings cannings howe proceed \
    exceed succeed sky 3.5 don't snake_case caf\u{e9} \u{130}stanbul \u{212a}elvin \u{732b} \u{17f}hort CATS Tables x2";
const GAPS: [&str; 9] = [" ", " ", " ", " ", ", ", "-", "\t", ". ", "\n"];
const LETTERS: &[u8] = b"aeiouylszbcdfgnrt1";

#[derive(Deserialize)]
struct Checksums {
    scores: Vec<String>,
    stems: Vec<String>,
}

fn checksums() -> Checksums {
    serde_json::from_str(include_str!("fixtures/rouge_pairs.json")).unwrap()
}

struct Texts {
    random: Random,
    bases: Vec<&'static str>,
    suffixes: Vec<&'static str>,
    others: Vec<&'static str>,
}

impl Texts {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            bases: BASES.split_whitespace().collect(),
            suffixes: SUFFIXES.split_whitespace().collect(),
            others: OTHERS.split_whitespace().collect(),
        }
    }

    fn inflected(&mut self) -> String {
        let base = self.bases[self.random.below(self.bases.len())];
        format!("{base}{}", self.suffix())
    }

    fn suffix(&mut self) -> &'static str {
        self.suffixes[self.random.below(self.suffixes.len())]
    }

    /// A word, and what stands behind it.
    fn part(&mut self) -> (String, &'static str) {
        let word = match self.random.below(4) {
            0 => self.inflected(),
            1 => self.others[self.random.below(self.others.len())].to_owned(),
            _ => self.others[self.random.below(6)].to_owned(),
        };
        (word, GAPS[self.random.below(GAPS.len())])
    }

    fn pair(&mut self) -> [String; 2] {
        let length = match self.random.below(50) {
            0 => 60 + self.random.below(80),
            _ => self.random.below(25),
        };
        let target: Vec<_> = (0..length).map(|_| self.part()).collect();
        let mut prediction = Vec::new();
        let unrelated = self.random.below(4) == 0;
        for part in &target {
            match self.random.below(12) {
                action if unrelated || action == 0 => prediction.push(self.part()),
                1 => {}
                2 => prediction.extend([part.clone(), part.clone()]),
                3 if !prediction.is_empty() => {
                    prediction.insert(self.random.below(prediction.len()), part.clone());
                }
                _ => prediction.push(part.clone()),
            }
        }
        [target, prediction].map(|parts| {
            let parts = parts.iter().map(|(word, gap)| format!("{word}{gap}"));
            parts.collect()
        })
    }

    fn word(&mut self) -> String {
        if self.random.below(3) == 0 {
            let length = 4 + self.random.below(7);
            let letters = (0..length).map(|_| LETTERS[self.random.below(LETTERS.len())]);
            return letters.map(char::from).collect();
        }
        let base = self.inflected();
        match self.random.below(2) {
            0 => format!("{base}{}", self.suffix()),
            _ => format!("{base}e"),
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))[..16].to_owned()
}

#[test]
fn scores_equal_rouge_score() {
    let order = |n| NonZeroUsize::new(n).unwrap();
    let mut texts = Texts::new(1);
    let expected = checksums().scores;
    assert_eq!(expected.len(), 24);
    for (chunk, expected) in expected.into_iter().enumerate() {
        let mut bytes = Vec::new();
        for _ in 0..CHUNK {
            let [target, prediction] = texts.pair();
            for tokenizer in [Tokenizer::Rouge, Tokenizer::RougeStemmed] {
                for score in [
                    rouge_n(order(1), &target, &prediction, tokenizer),
                    rouge_n(order(2), &target, &prediction, tokenizer),
                    rouge_l(&target, &prediction, tokenizer),
                    rouge_lsum(&target, &prediction, tokenizer),
                ] {
                    for number in [score.precision, score.recall, score.fmeasure] {
                        bytes.extend(number.to_be_bytes());
                    }
                }
            }
        }
        assert_eq!(checksum(&bytes), expected, "pairs from {}", chunk * CHUNK);
    }
}

#[test]
fn stems_equal_those_of_nltk() {
    let mut texts = Texts::new(2);
    let expected = checksums().stems;
    assert_eq!(expected.len(), 60);
    for (chunk, expected) in expected.into_iter().enumerate() {
        let words: Vec<String> = (0..CHUNK).map(|_| texts.word()).collect();
        let stems = Tokenizer::RougeStemmed.tokenize(&words.join(" "));
        let found = checksum(stems.join(" ").as_bytes());
        assert_eq!(found, expected, "words from {}", chunk * CHUNK);
    }
}
