//! The index that finds the few kept texts which can be closer to a text than the threshold.

use super::bounds::Bounds;
use super::lists::{LONG, Lists, Posting};
use super::store::Store;
use super::vocabulary::{Encoded, Vocabulary};
use crate::growth::extend;

/// Texts kept before the elements are ranked for the first time.
const FIRST_RANKING: usize = 512;
/// Of so many postings one may be recent: visiting it costs as much as many merged ones.
const RECENT_SHARE: usize = 64;
/// The same while all texts are listed anew and nobody asks.
const RECENT_SHARE_OF_RANKING: usize = 32;

/// The kept texts by their rarest elements (the prefix filter of Bayardo, Ma and Srikant 2007, with the positions of
/// Xiao et al. 2008 and the bitmaps of Sandes, Teodoro and Melo).
///
/// The elements of all texts are sorted by one order, and a text stands in the lists of its first few only. Any order is
/// exact as long as it is the same for all texts; it is fast if rare elements come first. So the order is fixed: by the
/// number of texts that have the element when it was ranked, and elements that came later before all others, the last
/// one first, since they were unknown until then. Each time the collection has doubled everything is ranked and listed anew.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// For each element the kept texts it is among the first of.
    lists: Lists,
    /// For each element the number of kept texts that have it.
    frequencies: Vec<u32>,
    /// Ranks, 0 the rarest, of the elements known when they were ranked.
    ranks: Vec<u32>,
    /// Number of texts at which to rank anew.
    next_ranking: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            lists: Lists::default(),
            frequencies: Vec::new(),
            ranks: Vec::new(),
            next_ranking: FIRST_RANKING,
        }
    }
}

impl Index {
    /// Adds a text whose number is greater than all before. `elements` is put into the index's order.
    pub(super) fn add(&mut self, id: usize, text: &mut Encoded, bounds: &Bounds) {
        for &element in &text.elements {
            let element = element as usize;
            extend(&mut self.frequencies, element + 1, 0);
            if let Some(frequency) = self.frequencies.get_mut(element) {
                *frequency += 1;
            }
        }
        self.list(id, &mut text.elements, text.sketch, bounds);
        self.lists.merge_if_due(RECENT_SHARE);
    }

    /// Takes a text's elements out of the count. Its postings stay until the next ranking.
    pub(super) fn remove(&mut self, elements: &[u32]) {
        for &element in elements {
            if let Some(frequency) = self.frequencies.get_mut(element as usize) {
                *frequency = frequency.saturating_sub(1);
            }
        }
    }

    fn list(&mut self, id: usize, elements: &mut [u32], sketch: u128, bounds: &Bounds) {
        self.sort(elements);
        let length = elements.len();
        let prefix = elements.iter().take(bounds.target_prefix(length));
        for (position, &element) in prefix.enumerate() {
            self.lists.push(
                element,
                Posting {
                    id: id as u32,
                    sketch: fold(sketch),
                    length: length.min(LONG) as u16,
                    rest: (length - position).min(LONG) as u16,
                },
            );
        }
    }

    fn sort(&self, elements: &mut [u32]) {
        elements.sort_unstable_by_key(|&element| match self.ranks.get(element as usize) {
            Some(&rank) => (true, rank),
            None => (false, u32::MAX - element),
        });
    }

    /// Whether it is time for [`rank`](Self::rank).
    pub(super) fn is_due(&self, kept: usize) -> bool {
        kept >= self.next_ranking
    }

    /// Ranks the elements by their frequencies of now, and lists all texts anew.
    pub(super) fn rank(&mut self, store: &Store, vocabulary: &Vocabulary, bounds: &Bounds) {
        let mut order: Vec<u32> = (0..self.frequencies.len() as u32).collect();
        let frequency = |&element: &u32| self.frequencies.get(element as usize).copied();
        order.sort_by_key(frequency);
        extend(&mut self.ranks, order.len(), 0);
        for (rank, element) in order.into_iter().enumerate() {
            if let Some(slot) = self.ranks.get_mut(element as usize) {
                *slot = rank as u32;
            }
        }
        self.lists.clear();
        let mut tokens = Vec::new();
        for id in store.ids() {
            tokens.clear();
            tokens.extend(store.tokens(id));
            let mut elements = vocabulary.elements(&tokens);
            self.list(id, &mut elements, store.sketch(id), bounds);
            self.lists.merge_if_due(RECENT_SHARE_OF_RANKING);
        }
        self.lists.merge();
        self.next_ranking = FIRST_RANKING.max(2 * store.len());
    }

    /// Numbers from `from` on of the texts whose F with `text` may be greater than the threshold, in ascending order, each
    /// with its length, at most [`LONG`]. Texts removed since the last ranking may be among them. The elements of `text`
    /// are put into the index's order.
    pub(super) fn candidates(
        &self,
        text: &mut Encoded,
        from: usize,
        bounds: &Bounds,
    ) -> Vec<(u32, u16)> {
        let mut candidates = Vec::new();
        self.sort(&mut text.elements);
        let length = text.elements.len();
        let sketch = fold(text.sketch);
        let row = bounds.row(length);
        let prefix = text.elements.iter().take(bounds.prediction_prefix(length));
        for (position, &element) in prefix.enumerate() {
            let rest = length - position;
            self.lists.for_each(element, from, |posting| {
                let other = usize::from(posting.length);
                if other < LONG {
                    let least = match row.get(other) {
                        Some(&least) => usize::from(least),
                        None => bounds.least(other, length),
                    };
                    // Where the two first share an element, all they share is yet to come.
                    if least > rest.min(usize::from(posting.rest)) {
                        return;
                    }
                    let differing = (sketch ^ posting.sketch).count_ones() as usize;
                    if differing + 2 * least > length + other {
                        return;
                    }
                }
                candidates.push((posting.id, posting.length));
            });
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }
}

/// A sketch of 32 bits: the parities of elements by the lower bits of their places.
fn fold(sketch: u128) -> u32 {
    let folded = sketch as u64 ^ (sketch >> 64) as u64;
    folded as u32 ^ (folded >> 32) as u32
}
