//! The lists of the index, in a few large blocks.
#![allow(
    clippy::indexing_slicing,
    reason = "places come from the lists themselves, and both tables of elements have one length"
)]

use crate::growth::{extend, push};

/// Recent postings that are always allowed.
const FEW: usize = 512;

/// A kept text in the list of an element.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Posting {
    pub(super) id: u32,
    /// The text's sketch, folded: still a map of parities.
    pub(super) sketch: u32,
    /// The text's length in tokens; [`LONG`] for all that are as long or longer.
    pub(super) length: u16,
    /// How many of its elements stand from this one on in the order; of no meaning for a long text.
    pub(super) rest: u16,
}

/// Texts of this length and more pass the filters of the index, and are left to the exact comparison.
pub(super) const LONG: usize = u16::MAX as usize;

/// For each element a list of postings.
///
/// Most elements are rare, so a block of its own for each list would be mostly overhead. The lists stand one after the
/// other in one block; what was added since is chained, and merged into the block before it is more than a small share.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    /// The merged lists.
    postings: Vec<Posting>,
    /// Where the merged list of an element ends; it begins where that of the element before ends.
    ends: Vec<usize>,
    /// What was added since, each with the place, counted from 1, of the one before it in its list, or 0.
    recent: Vec<(Posting, u32)>,
    /// For each element the place, counted from 1, of its last recent posting, or 0.
    last: Vec<u32>,
}

impl Lists {
    /// Empties all lists. The memory stays for those that follow.
    pub(super) fn clear(&mut self) {
        self.postings.clear();
        self.ends.fill(0);
        self.recent.clear();
        self.last.fill(0);
    }

    /// Adds a posting whose number is greater than all in the list.
    pub(super) fn push(&mut self, element: u32, posting: Posting) {
        let element = element as usize;
        extend(&mut self.ends, element + 1, self.postings.len());
        extend(&mut self.last, element + 1, 0);
        push(&mut self.recent, (posting, self.last[element]));
        self.last[element] = self.recent.len() as u32;
    }

    /// Calls `visit` with the postings of a list whose numbers are `from` and up, in no order.
    pub(super) fn for_each(&self, element: u32, from: usize, mut visit: impl FnMut(&Posting)) {
        let element = element as usize;
        let Some(&end) = self.ends.get(element) else {
            return;
        };
        let start = element.checked_sub(1).map_or(0, |before| self.ends[before]);
        let merged = &self.postings[start..end];
        let known = match from {
            0 => 0,
            _ => merged.partition_point(|posting| (posting.id as usize) < from),
        };
        for posting in &merged[known..] {
            visit(posting);
        }
        let mut place = self.last[element] as usize;
        while let Some((posting, before)) = place.checked_sub(1).map(|place| &self.recent[place]) {
            if (posting.id as usize) < from {
                break;
            }
            visit(posting);
            place = *before as usize;
        }
    }

    /// Merges if more than one posting in `share` is recent.
    pub(super) fn merge_if_due(&mut self, share: usize) {
        if self.recent.len() > FEW + self.postings.len() / share {
            self.merge();
        }
    }

    /// Merges what is recent. Room is made from the end of the block on, so that nothing is moved onto what is still to be
    /// moved.
    pub(super) fn merge(&mut self) {
        let mut left = self.recent.len();
        let mut moved = self.postings.len();
        self.postings.reserve_exact(left);
        self.postings.resize(moved + left, Posting::default());
        for (end, last) in self.ends.iter_mut().zip(&mut self.last).rev() {
            if left == 0 {
                break;
            }
            let start = *end;
            *end += left;
            if *last == 0 {
                continue;
            }
            // All behind this list up to what was moved before goes at once.
            self.postings.copy_within(start..moved, start + left);
            moved = start;
            while let Some(place) = last.checked_sub(1) {
                let (posting, before) = self.recent[place as usize];
                left -= 1;
                self.postings[start + left] = posting;
                *last = before;
            }
        }
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_are_what_was_added(
            added in prop::collection::vec((0_u32..40, 0_usize..20), 0..2000),
            from in 0_usize..2000,
        ) {
            let mut lists = Lists::default();
            let mut expected = vec![Vec::new(); 50];
            for (id, (element, then)) in added.into_iter().enumerate() {
                let posting = Posting { id: id as u32, sketch: element, ..Posting::default() };
                lists.push(element, posting);
                expected[element as usize].push(posting);
                match then {
                    0 => lists.merge(),
                    1 => lists.merge_if_due(8),
                    _ => {}
                }
            }
            for (element, expected) in expected.iter().enumerate() {
                for from in [0, from] {
                    let mut found = Vec::new();
                    lists.for_each(element as u32, from, |posting| found.push(*posting));
                    found.sort_unstable_by_key(|posting| posting.id);
                    let expected = expected.iter().filter(|posting| posting.id as usize >= from);
                    prop_assert!(found.iter().eq(expected));
                }
            }
        }
    }

    #[test]
    fn few_postings_stay_recent() {
        let mut lists = Lists::default();
        for id in 0..100_000 {
            let posting = Posting {
                id,
                ..Posting::default()
            };
            lists.push(id % 1000, posting);
            lists.merge_if_due(32);
            assert!(lists.recent.len() <= FEW + lists.postings.len() / 32);
        }
        assert_eq!(lists.postings.len() + lists.recent.len(), 100_000);
        assert!(lists.postings.capacity() < 100_001);
    }
}
