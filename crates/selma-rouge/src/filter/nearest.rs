//! The nearest kept text, however far it is.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::store::Store;
use super::vocabulary::Encoded;
use super::{DiversityFilter, Nearest};
use crate::growth::push;
use crate::lcs::Pattern;

/// Numbers of kept texts by their numbers of tokens; those without tokens are in none.
#[derive(Debug, Clone, Default)]
pub(super) struct Lengths(BTreeMap<usize, Vec<u32>>);

impl Lengths {
    /// Adds a text whose number is greater than all before.
    pub(super) fn add(&mut self, id: usize, length: usize) {
        if length > 0 {
            push(self.0.entry(length).or_default(), id as u32);
        }
    }

    pub(super) fn remove(&mut self, id: usize, length: usize) {
        let Some(ids) = self.0.get_mut(&length) else {
            return;
        };
        if let Ok(at) = ids.binary_search(&(id as u32)) {
            ids.remove(at);
        }
    }
}

impl DiversityFilter {
    /// The kept text with the greatest ROUGE-L F, the first of several; `None` if none shares a token with `text`.
    ///
    /// Takes microseconds if it is closer than the threshold. Otherwise the time grows with the number of kept texts, a few
    /// milliseconds for a million.
    pub fn nearest(&self, text: &str) -> Option<Nearest> {
        let mut encoded = self.encode(text);
        self.probe(&mut encoded, 0)
            .or_else(|| self.search(&encoded))
    }

    /// Visits the lengths in the order of the best F they allow, and stops where it is less than one found.
    fn search(&self, text: &Encoded) -> Option<Nearest> {
        let length = text.tokens.len();
        let mut search = Search {
            text,
            pattern: Pattern::new(&text.tokens),
            store: &self.store,
            bounds: &self.bounds,
            best: None,
        };
        let mut shorter = self.lengths.0.range(..=length).rev().peekable();
        let mut longer = self.lengths.0.range(length + 1..).peekable();
        loop {
            let limit = |bucket: Option<&(&usize, &Vec<u32>)>| {
                bucket.map_or(0.0, |&(&other, _)| {
                    self.bounds.score(other.min(length), other, length).fmeasure
                })
            };
            let (below, above) = (limit(shorter.peek()), limit(longer.peek()));
            // For an extreme beta neighbouring lengths allow the same F up to rounding.
            let slack = 1.0 + 1e-9;
            if below.max(above) * slack < search.best.map_or(0.0, |best| best.score.fmeasure) {
                return search.best;
            }
            let next = if below >= above {
                shorter.next()
            } else {
                longer.next()
            };
            let Some((&other, ids)) = next else {
                return search.best;
            };
            search.visit(other, ids);
        }
    }
}

/// A search among texts of one length after the other.
#[derive(Debug)]
struct Search<'a> {
    text: &'a Encoded,
    pattern: Pattern,
    store: &'a Store,
    bounds: &'a Bounds,
    best: Option<Nearest>,
}

impl Search<'_> {
    /// Compares the text with the kept texts of one length.
    fn visit(&mut self, other: usize, ids: &[u32]) {
        let length = self.text.tokens.len();
        let mut least = self.least(other);
        for &id in ids {
            let id = id as usize;
            let differing = (self.text.sketch ^ self.store.sketch(id)).count_ones() as usize;
            if differing + 2 * least > length + other {
                continue;
            }
            let lcs = self.pattern.lcs_len(self.store.tokens(id));
            if lcs < least {
                continue;
            }
            let found = Nearest {
                id,
                score: self.bounds.score(lcs, other, length),
            };
            self.best = Some(self.best.map_or(found, |best| best.or_closer(found)));
            least = self.least(other);
        }
    }

    /// The least common length that can change the result.
    fn least(&self, other: usize) -> usize {
        let length = self.text.tokens.len();
        self.best.map_or(1, |best| {
            self.bounds
                .least_reaching(best.score.fmeasure, other, length)
        })
    }
}
