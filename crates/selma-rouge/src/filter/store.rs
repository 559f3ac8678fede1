//! The kept texts.

use std::collections::HashSet;
use std::ops::Range;

/// Texts, their tokens and their sketches, one after the other in a few large blocks: a text of its own would cost two
/// allocations.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    text: String,
    tokens: Vec<u32>,
    records: Vec<Record>,
    removed: HashSet<usize>,
    /// Removed texts whose bytes are still there.
    garbage: usize,
}

/// Where a text ends; it begins where the one before ends.
#[derive(Debug, Clone, Copy)]
struct Record {
    text_end: usize,
    tokens_end: usize,
    /// In halves, whose alignment costs nothing.
    sketch: [u64; 2],
}

impl Store {
    /// Number of texts ever kept; the next one's number.
    pub(super) fn next_id(&self) -> usize {
        self.records.len()
    }

    /// Number of texts that are there.
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.removed.len()
    }

    pub(super) fn contains(&self, id: usize) -> bool {
        id < self.records.len() && !self.removed.contains(&id)
    }

    pub(super) fn push(&mut self, text: &str, tokens: &[u32], sketch: u128) {
        // Doubling would waste up to half of the memory.
        if self.text.capacity() - self.text.len() < text.len() {
            self.text.reserve_exact(text.len() + self.text.len() / 8);
        }
        if self.tokens.capacity() - self.tokens.len() < tokens.len() {
            let more = tokens.len() + self.tokens.len() / 8;
            self.tokens.reserve_exact(more);
        }
        if self.records.capacity() == self.records.len() {
            self.records.reserve_exact(16 + self.records.len() / 8);
        }
        self.text.push_str(text);
        self.tokens.extend_from_slice(tokens);
        self.records.push(Record {
            text_end: self.text.len(),
            tokens_end: self.tokens.len(),
            sketch: [sketch as u64, (sketch >> 64) as u64],
        });
    }

    pub(super) fn get(&self, id: usize) -> Option<&str> {
        if !self.contains(id) {
            return None;
        }
        let range = self.range(id, |record| record.text_end)?;
        self.text.get(range)
    }

    /// The tokens of a text; none if there is no such text.
    pub(super) fn tokens(&self, id: usize) -> &[u32] {
        let range = self.range(id, |record| record.tokens_end);
        range
            .and_then(|range| self.tokens.get(range))
            .unwrap_or_default()
    }

    /// The sketch of a text's elements, see [`sketch`](super::vocabulary).
    pub(super) fn sketch(&self, id: usize) -> u128 {
        self.records.get(id).map_or(0, |record| {
            let [low, high] = record.sketch.map(u128::from);
            low | high << 64
        })
    }

    fn range(&self, id: usize, end: impl Fn(&Record) -> usize) -> Option<Range<usize>> {
        let before = id
            .checked_sub(1)
            .and_then(|before| self.records.get(before));
        Some(before.map_or(0, &end)..end(self.records.get(id)?))
    }

    /// Numbers of the texts that are there, in order.
    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.records.len()).filter(|id| !self.removed.contains(id))
    }

    /// Removes a text; its bytes stay until [`compact`](Self::compact). Whether it was there.
    pub(super) fn remove(&mut self, id: usize) -> bool {
        let there = self.contains(id) && self.removed.insert(id);
        self.garbage += usize::from(there);
        there
    }

    /// Whether more than half of the texts take memory for nothing.
    pub(super) fn is_mostly_garbage(&self) -> bool {
        self.garbage > self.len() + 64
    }

    /// Gives up the bytes of removed texts. Numbers stay.
    pub(super) fn compact(&mut self) {
        if self.garbage == 0 {
            return;
        }
        let mut compacted = Self {
            records: Vec::with_capacity(self.records.len()),
            ..Self::default()
        };
        for id in 0..self.records.len() {
            // A removed text leaves an empty record.
            match self.get(id) {
                Some(text) => compacted.push(text, self.tokens(id), self.sketch(id)),
                None => compacted.push("", &[], 0),
            }
        }
        compacted.removed = std::mem::take(&mut self.removed);
        *self = compacted;
    }
}
