//! The kept texts.

use std::collections::HashSet;
use std::iter;
use std::ops::Range;

use crate::growth::{growth, push};

/// Texts, their tokens and their sketches, one after the other in a few large blocks: a text of its own would cost two
/// allocations.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    text: String,
    /// Numbers in 7 bits a byte (LEB128): half of all tokens are common words, whose numbers are small.
    tokens: Vec<u8>,
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
        let more = growth(self.text.len(), self.text.capacity(), text.len());
        self.text.reserve_exact(more);
        self.text.push_str(text);
        for &token in tokens {
            let mut rest = token;
            while rest >= 0x80 {
                push(&mut self.tokens, rest as u8 | 0x80);
                rest >>= 7;
            }
            push(&mut self.tokens, rest as u8);
        }
        let record = Record {
            text_end: self.text.len(),
            tokens_end: self.tokens.len(),
            sketch: [sketch as u64, (sketch >> 64) as u64],
        };
        push(&mut self.records, record);
    }

    pub(super) fn get(&self, id: usize) -> Option<&str> {
        if !self.contains(id) {
            return None;
        }
        let range = self.range(id, |record| record.text_end)?;
        self.text.get(range)
    }

    /// The tokens of a text; none if there is no such text.
    pub(super) fn tokens(&self, id: usize) -> impl Iterator<Item = u32> {
        let range = self.range(id, |record| record.tokens_end);
        let bytes = range.and_then(|range| self.tokens.get(range));
        let mut bytes = bytes.unwrap_or_default().iter();
        iter::from_fn(move || {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = u32::from(*bytes.next()?);
                number |= (byte & 0x7F) << shift;
                if byte < 0x80 {
                    return Some(number);
                }
                shift += 7;
            }
        })
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
                Some(text) => {
                    let tokens: Vec<u32> = self.tokens(id).collect();
                    compacted.push(text, &tokens, self.sketch(id));
                }
                None => compacted.push("", &[], 0),
            }
        }
        compacted.removed = std::mem::take(&mut self.removed);
        *self = compacted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_every_size_come_back() {
        let mut store = Store::default();
        let mut tokens = vec![0, u32::MAX];
        for bits in 0..32 {
            tokens.extend([(1 << bits) - 1, 1 << bits]);
        }
        store.push("a", &[], 0);
        store.push("b", &tokens, u128::MAX - 1);
        store.push("c", &[7], 0);
        assert_eq!(store.tokens(0).next(), None);
        assert_eq!(store.tokens(1).collect::<Vec<u32>>(), tokens);
        assert_eq!(store.tokens(2).collect::<Vec<u32>>(), [7]);
        assert_eq!(store.tokens(3).next(), None);
        assert_eq!(store.sketch(1), u128::MAX - 1);
        assert!(store.remove(0));
        store.compact();
        assert_eq!(store.tokens(1).collect::<Vec<u32>>(), tokens);
        assert_eq!((store.get(0), store.get(1)), (None, Some("b")));
    }
}
