//! The filter that keeps a growing collection of texts diverse.

use std::collections::{BTreeMap, HashMap};

use crate::lcs::Pattern;
use crate::{RougeError, Score, Tokenizer};

/// The kept text that is closest to another text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Number of the kept text, see [`DiversityFilter::get`].
    pub id: usize,
    /// ROUGE-L with the kept text as target and the other text as prediction.
    pub score: Score,
}

/// What a [`DiversityFilter`] decided about a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The text was kept.
    Kept {
        /// Its number, counted from 0.
        id: usize,
        /// The closest of the texts kept before it; `None` if none shares a token with it.
        nearest: Option<Nearest>,
    },
    /// The text was rejected, and the filter is unchanged.
    Rejected {
        /// The closest of the kept texts.
        nearest: Nearest,
    },
}

impl Verdict {
    /// Whether the text was kept.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// The closest of the texts kept before, if any shares a token with the text.
    pub fn nearest(&self) -> Option<Nearest> {
        match *self {
            Self::Kept { nearest, .. } => nearest,
            Self::Rejected { nearest } => Some(nearest),
        }
    }
}

/// Keeps texts that differ enough from all texts kept before.
///
/// A text is rejected if and only if its greatest ROUGE-L F with a kept text is greater than the threshold, as in
/// Self-Instruct (arXiv 2212.10560) and SELMA. The search is exact and deterministic; of several kept texts with the
/// same F the first is the nearest. A text without tokens scores zero against everything, and so is always kept, even
/// when it equals a kept one.
///
/// Memory grows by the text, four bytes a token and a few dozen bytes for each kept text.
#[derive(Debug, Clone)]
pub struct DiversityFilter {
    threshold: f64,
    tokenizer: Tokenizer,
    texts: Vec<Box<str>>,
    vocabulary: HashMap<Box<str>, u32>,
    /// Kept texts by their number of tokens; those without tokens are in none.
    by_length: BTreeMap<usize, Vec<Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    id: usize,
    sketch: u128,
    tokens: Box<[u32]>,
}

/// A text as numbers, and the tokens that the vocabulary lacks, which the next free numbers stand for.
#[derive(Debug)]
struct Encoded {
    tokens: Vec<u32>,
    sketch: u128,
    new: Vec<String>,
}

impl DiversityFilter {
    /// An empty filter that rejects texts whose ROUGE-L F with a kept one is greater than `threshold`.
    ///
    /// # Errors
    /// [`RougeError::Threshold`] unless `0 < threshold <= 1`. At 1 every text is kept.
    pub fn new(threshold: f64, tokenizer: Tokenizer) -> Result<Self, RougeError> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(RougeError::Threshold { found: threshold });
        }
        Ok(Self {
            threshold,
            tokenizer,
            texts: Vec::new(),
            vocabulary: HashMap::new(),
            by_length: BTreeMap::new(),
        })
    }

    /// Keeps `text` unless it is too close to a kept one.
    pub fn offer(&mut self, text: &str) -> Verdict {
        let encoded = self.encode(text);
        match self.search(&encoded) {
            Some(nearest) if nearest.score.fmeasure > self.threshold => {
                Verdict::Rejected { nearest }
            }
            nearest => Verdict::Kept {
                id: self.keep(text, encoded),
                nearest,
            },
        }
    }

    /// Keeps `text` whatever it is close to, and returns its number. For seeds, and for texts accepted earlier.
    pub fn insert(&mut self, text: &str) -> usize {
        let encoded = self.encode(text);
        self.keep(text, encoded)
    }

    /// The kept text with this number.
    pub fn get(&self, id: usize) -> Option<&str> {
        self.texts.get(id).map(AsRef::as_ref)
    }

    /// Number of kept texts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether nothing has been kept.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The kept texts in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(AsRef::as_ref)
    }

    /// The threshold that was given.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The tokenizer that was given.
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// The kept text with the greatest ROUGE-L F, the first of several; `None` if none shares a token with `text`.
    pub fn nearest(&self, text: &str) -> Option<Nearest> {
        self.search(&self.encode(text))
    }

    fn encode(&self, text: &str) -> Encoded {
        let mut fresh: HashMap<String, u32> = HashMap::new();
        let mut new = Vec::new();
        let mut tokens = Vec::new();
        for token in self.tokenizer.tokenize(text) {
            let known = self
                .vocabulary
                .get(token.as_str())
                .or_else(|| fresh.get(&token))
                .copied();
            tokens.push(known.unwrap_or_else(|| {
                let id = (self.vocabulary.len() + new.len()) as u32;
                new.push(token.clone());
                fresh.insert(token, id);
                id
            }));
        }
        let sketch = sketch(&tokens);
        Encoded {
            tokens,
            sketch,
            new,
        }
    }

    fn keep(&mut self, text: &str, encoded: Encoded) -> usize {
        let id = self.texts.len();
        self.texts.push(text.into());
        for token in encoded.new {
            let next = self.vocabulary.len() as u32;
            self.vocabulary.insert(token.into_boxed_str(), next);
        }
        let length = encoded.tokens.len();
        if length > 0 {
            let entry = Entry {
                id,
                sketch: encoded.sketch,
                tokens: encoded.tokens.into(),
            };
            self.by_length.entry(length).or_default().push(entry);
        }
        id
    }

    /// Visits the lengths in the order of the best F they allow, and stops where it is less than one found.
    fn search(&self, text: &Encoded) -> Option<Nearest> {
        let length = text.tokens.len();
        let pattern = Pattern::new(&text.tokens);
        let mut shorter = self.by_length.range(..=length).rev().peekable();
        let mut longer = self.by_length.range(length + 1..).peekable();
        let mut best: Option<Nearest> = None;
        loop {
            let limit = |bucket: Option<&(&usize, &Vec<Entry>)>| {
                bucket.map_or(0.0, |&(&other, _)| {
                    Score::from_lcs(other.min(length), other, length).fmeasure
                })
            };
            let (below, above) = (limit(shorter.peek()), limit(longer.peek()));
            if below.max(above) < best.map_or(0.0, |nearest| nearest.score.fmeasure) {
                return best;
            }
            let Some((&other, entries)) = (if below >= above {
                shorter.next()
            } else {
                longer.next()
            }) else {
                return best;
            };
            search_bucket(text, &pattern, other, entries, &mut best);
        }
    }
}

/// Compares `text` with the kept texts of one length.
fn search_bucket(
    text: &Encoded,
    pattern: &Pattern,
    other: usize,
    entries: &[Entry],
    best: &mut Option<Nearest>,
) {
    let length = text.tokens.len();
    let mut least = least_lcs(best.as_ref(), other, length);
    for entry in entries {
        // Each element that one bag has and the other lacks sets at most one differing bit.
        let differing = (text.sketch ^ entry.sketch).count_ones() as usize;
        if (length + other - differing) / 2 < least {
            continue;
        }
        let lcs = pattern.lcs_len(&entry.tokens);
        if lcs < least {
            continue;
        }
        let found = Nearest {
            id: entry.id,
            score: Score::from_lcs(lcs, other, length),
        };
        let better = best.is_none_or(|best| {
            let (old, new) = (best.score.fmeasure, found.score.fmeasure);
            new > old || (new == old && found.id < best.id)
        });
        if better {
            *best = Some(found);
            least = least_lcs(best.as_ref(), other, length);
        }
    }
}

/// The least common length, at least 1, whose F is not less than that of `best`.
///
/// F grows with the common length for fixed lengths of the texts: a step changes it by a factor of at least
/// `1 + 1 / lcs`, far more than its rounding.
fn least_lcs(best: Option<&Nearest>, target_len: usize, prediction_len: usize) -> usize {
    let Some(best) = best else { return 1 };
    let reaches =
        |lcs| Score::from_lcs(lcs, target_len, prediction_len).fmeasure >= best.score.fmeasure;
    // F is 2 lcs / (m + n) up to rounding, so the least length is within one of the guess.
    let guess = (best.score.fmeasure * (target_len + prediction_len) as f64 / 2.0).round() as usize;
    (guess.saturating_sub(1).max(1)..=guess + 1)
        .find(|&lcs| reaches(lcs))
        .unwrap_or(guess + 1)
}

/// Parities of a bag of tokens in 128 bits (the bitmap filter of Sandes, Teodoro and Melo, arXiv 1711.07295). The k-th
/// copy of a token is an element of its own.
fn sketch(tokens: &[u32]) -> u128 {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    let mut bits = 0;
    let mut copy = 0_u64;
    let mut previous = None;
    for token in sorted {
        copy = if previous == Some(token) { copy + 1 } else { 0 };
        previous = Some(token);
        let element = copy << 32 | u64::from(token);
        // Fibonacci hashing: the product's upper bits spread evenly.
        bits ^= 1_u128 << (element.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57);
    }
    bits
}
