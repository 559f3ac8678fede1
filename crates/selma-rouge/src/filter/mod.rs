//! The filter that keeps a growing collection of texts diverse.

mod batch;
mod bounds;
mod config;
mod index;
mod lists;
mod nearest;
mod state;
mod store;
mod verdict;
mod vocabulary;

use std::collections::HashMap;

use bounds::Bounds;
use index::Index;
use lists::LONG;
use nearest::Lengths;
use store::Store;
use vocabulary::{Encoded, Vocabulary};

use crate::lcs::Pattern;
use crate::{RougeError, Score, Tokenizer};

pub use config::{FilterConfig, WithoutTokens};
pub use verdict::{Nearest, Verdict};

/// Keeps texts that differ enough from all texts kept before.
///
/// A text is rejected if and only if its greatest ROUGE-L F with a kept text is greater than the threshold, as in
/// Self-Instruct (arXiv 2212.10560) and SELMA. The search is exact and deterministic; of several kept texts with the
/// same F the first is the nearest. What becomes of texts without tokens is a setting, [`WithoutTokens`].
///
/// A kept text of 12 tokens takes less than 200 bytes besides its own. At most 2³² texts can be kept.
#[derive(Debug, Clone)]
pub struct DiversityFilter {
    config: FilterConfig,
    bounds: Bounds,
    vocabulary: Vocabulary,
    store: Store,
    index: Index,
    lengths: Lengths,
    /// Numbers of the texts without tokens; empty under [`WithoutTokens::Keep`].
    without_tokens: HashMap<Box<str>, usize>,
}

impl DiversityFilter {
    /// An empty filter that rejects texts whose ROUGE-L F with a kept one is greater than `threshold`.
    ///
    /// # Errors
    /// [`RougeError::Threshold`] unless `0 < threshold <= 1`. At 1 every text is kept.
    pub fn new(threshold: f64, tokenizer: Tokenizer) -> Result<Self, RougeError> {
        Self::with_config(FilterConfig {
            threshold,
            tokenizer,
            ..FilterConfig::default()
        })
    }

    /// An empty filter.
    ///
    /// # Errors
    /// As [`FilterConfig::validate`].
    pub fn with_config(config: FilterConfig) -> Result<Self, RougeError> {
        config.validate()?;
        Ok(Self {
            config,
            bounds: Bounds::new(config.threshold, config.beta),
            vocabulary: Vocabulary::default(),
            store: Store::default(),
            index: Index::default(),
            lengths: Lengths::default(),
            without_tokens: HashMap::new(),
        })
    }

    /// Keeps `text` unless it is too close to a kept one.
    ///
    /// To know the nearest text of one that is kept, ask [`nearest`](Self::nearest) before.
    pub fn offer(&mut self, text: &str) -> Verdict {
        self.rank_if_due();
        let mut encoded = self.encode(text);
        let nearest = self.probe(&mut encoded, 0);
        self.resolve(text, encoded, nearest)
    }

    /// Keeps `text` whatever it is close to, and returns its number. For seeds, and for texts accepted earlier.
    pub fn insert(&mut self, text: &str) -> usize {
        self.rank_if_due();
        let encoded = self.encode(text);
        self.keep(text, encoded)
    }

    /// Removes a kept text, so that it rejects no other from now on. Whether it was there. The numbers of the others
    /// stay as they are, and its own is not given out again.
    pub fn remove(&mut self, id: usize) -> bool {
        let Some(text) = self.store.get(id) else {
            return false;
        };
        if self.without_tokens.get(text) == Some(&id) {
            self.without_tokens.remove(text);
        }
        let tokens: Vec<u32> = self.store.tokens(id).collect();
        let elements = self.vocabulary.elements(&tokens);
        self.index.remove(&elements);
        self.lengths.remove(id, elements.len());
        self.store.remove(id);
        if self.store.is_mostly_garbage() {
            self.store.compact();
            self.index.rank(&self.store, &self.vocabulary, &self.bounds);
        }
        true
    }

    /// The kept text with this number; `None` if it was removed.
    pub fn get(&self, id: usize) -> Option<&str> {
        self.store.get(id)
    }

    /// Number of kept texts.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether no text is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kept texts in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.store.ids().filter_map(|id| self.store.get(id))
    }

    /// The settings.
    pub fn config(&self) -> FilterConfig {
        self.config
    }

    /// The threshold that was given.
    pub fn threshold(&self) -> f64 {
        self.config.threshold
    }

    /// The tokenizer that was given.
    pub fn tokenizer(&self) -> Tokenizer {
        self.config.tokenizer
    }

    fn encode(&self, text: &str) -> Encoded {
        self.vocabulary.encode(text, self.config.tokenizer)
    }

    fn rank_if_due(&mut self) {
        if self.index.is_due(self.store.len()) {
            self.index.rank(&self.store, &self.vocabulary, &self.bounds);
        }
    }

    /// The nearest of the kept texts numbered `from` and up whose F is greater than the threshold.
    fn probe(&self, text: &mut Encoded, from: usize) -> Option<Nearest> {
        let candidates = self.index.candidates(text, from, &self.bounds);
        if candidates.is_empty() {
            return None;
        }
        let length = text.tokens.len();
        let pattern = Pattern::new(&text.tokens);
        let mut best: Option<Nearest> = None;
        for (id, other) in candidates {
            let id = id as usize;
            let other = match usize::from(other) {
                LONG => self.store.tokens(id).count(),
                other => other,
            };
            let least = self.bounds.least(other, length);
            let differing = (text.sketch ^ self.store.sketch(id)).count_ones() as usize;
            if differing + 2 * least > length + other {
                continue;
            }
            let lcs = pattern.lcs_len(self.store.tokens(id));
            if lcs < least || !self.store.contains(id) {
                continue;
            }
            let found = Nearest {
                id,
                score: self.bounds.score(lcs, other, length),
            };
            best = Some(best.map_or(found, |best| best.or_closer(found)));
        }
        best
    }

    /// The verdict, given the nearest text over the threshold.
    fn resolve(&mut self, text: &str, encoded: Encoded, nearest: Option<Nearest>) -> Verdict {
        let copy = || {
            let &id = self.without_tokens.get(text)?;
            let score = Score {
                precision: 1.0,
                recall: 1.0,
                fmeasure: 1.0,
            };
            encoded.tokens.is_empty().then_some(Nearest { id, score })
        };
        match nearest.or_else(copy) {
            Some(nearest) => Verdict::Rejected { nearest },
            None => Verdict::Kept {
                id: self.keep(text, encoded),
            },
        }
    }

    fn keep(&mut self, text: &str, mut encoded: Encoded) -> usize {
        let id = self.store.next_id();
        self.vocabulary.extend(std::mem::take(&mut encoded.new));
        self.store.push(text, &encoded.tokens, encoded.sketch);
        self.lengths.add(id, encoded.tokens.len());
        if encoded.tokens.is_empty() {
            if self.config.without_tokens == WithoutTokens::Distinct {
                self.without_tokens.entry(text.into()).or_insert(id);
            }
        } else {
            self.index.add(id, &mut encoded, &self.bounds);
        }
        id
    }
}
