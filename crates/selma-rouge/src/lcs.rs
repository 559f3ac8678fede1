//! Length of the longest common subsequence, 64 table cells at a time.
#![allow(
    clippy::indexing_slicing,
    reason = "slots are handed out by `Pattern::new`, which sizes the tables they index"
)]

use std::collections::HashMap;

/// Length of the longest common subsequence of two sequences.
///
/// Bit-parallel after Hyyrö, "Bit-Parallel LCS-length Computation Revisited" (2004): about `a.len() / 64 * b.len()`
/// word operations.
pub fn lcs_len(a: &[u32], b: &[u32]) -> usize {
    let mut dense = HashMap::new();
    let a: Vec<u32> = a
        .iter()
        .map(|&symbol| {
            let next = dense.len() as u32;
            *dense.entry(symbol).or_insert(next)
        })
        .collect();
    // A symbol that `a` lacks matches nothing, so it can be left out.
    let b: Vec<u32> = b
        .iter()
        .filter_map(|symbol| dense.get(symbol).copied())
        .collect();
    Pattern::new(&a).lcs_len(&b)
}

/// One sequence prepared for comparison with many others.
///
/// Symbols must be small numbers: the table has one entry for each number up to the largest.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Words in one mask.
    words: usize,
    /// For each symbol the number of its mask, or 0 if the pattern lacks it.
    slots: Vec<u32>,
    /// Masks, mask `s` at `(s - 1) * words`; bit `i` is set where the pattern's symbol `i` is the mask's.
    masks: Vec<u64>,
}

impl Pattern {
    pub(crate) fn new(pattern: &[u32]) -> Self {
        let words = pattern.len().div_ceil(64);
        let table = pattern
            .iter()
            .max()
            .map_or(0, |&largest| largest as usize + 1);
        let mut slots = vec![0_u32; table];
        let mut masks = Vec::new();
        let mut used = 0;
        for (position, &symbol) in pattern.iter().enumerate() {
            let slot = &mut slots[symbol as usize];
            if *slot == 0 {
                used += 1;
                *slot = used;
                masks.resize(masks.len() + words, 0);
            }
            masks[(*slot as usize - 1) * words + position / 64] |= 1 << (position % 64);
        }
        Self {
            words,
            slots,
            masks,
        }
    }

    fn slot(&self, symbol: u32) -> usize {
        self.slots
            .get(symbol as usize)
            .map_or(0, |&slot| slot as usize)
    }

    /// Length of the longest common subsequence of the pattern and `text`.
    pub(crate) fn lcs_len(&self, text: &[u32]) -> usize {
        match self.words {
            0 => 0,
            1 => self.lcs_one_word(text),
            _ => self.lcs_many_words(text),
        }
    }

    /// A zero bit in `v` marks a row where the table's column steps up by one; bits past the pattern's end stay one.
    fn lcs_one_word(&self, text: &[u32]) -> usize {
        let mut v = u64::MAX;
        for &symbol in text {
            let slot = self.slot(symbol);
            if slot != 0 {
                let u = v & self.masks[slot - 1];
                v = v.wrapping_add(u) | (v - u);
            }
        }
        v.count_zeros() as usize
    }

    /// The same with the addition's carry handed from word to word; the subtraction never borrows, since `u` is part
    /// of `v`.
    fn lcs_many_words(&self, text: &[u32]) -> usize {
        let mut column = vec![u64::MAX; self.words];
        for &symbol in text {
            let slot = self.slot(symbol);
            if slot == 0 {
                continue;
            }
            let mask = &self.masks[(slot - 1) * self.words..slot * self.words];
            let mut carry = false;
            for (v, m) in column.iter_mut().zip(mask) {
                let u = *v & m;
                let (sum, over) = v.overflowing_add(u);
                let (sum, over_again) = sum.overflowing_add(u64::from(carry));
                carry = over || over_again;
                *v = sum | (*v - u);
            }
        }
        column.iter().map(|v| v.count_zeros() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table, one row at a time.
    fn by_table(a: &[u32], b: &[u32]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = if x == y {
                    diagonal + 1
                } else {
                    above.max(row[j])
                };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    #[test]
    fn known_lengths() {
        // `testLcsTable` of google-research's rouge_scorer_test.py.
        assert_eq!(lcs_len(&[1, 2, 3, 4, 5], &[2, 5, 3, 4]), 3);
        assert_eq!(lcs_len(&[], &[1]), 0);
        assert_eq!(lcs_len(&[1], &[]), 0);
        assert_eq!(lcs_len(&[u32::MAX, 0], &[7, u32::MAX]), 1);
    }

    #[test]
    fn word_boundaries() {
        for len in [63, 64, 65, 127, 128, 129, 200] {
            let same = vec![5; len];
            assert_eq!(lcs_len(&same, &same), len);
            let up: Vec<u32> = (0..len as u32).collect();
            let down: Vec<u32> = up.iter().rev().copied().collect();
            assert_eq!(lcs_len(&up, &up), len);
            assert_eq!(lcs_len(&up, &down), 1);
        }
    }

    proptest! {
        #[test]
        fn equals_the_table(
            a in prop::collection::vec(0_u32..6, 0..150),
            b in prop::collection::vec(0_u32..7, 0..150),
        ) {
            prop_assert_eq!(lcs_len(&a, &b), by_table(&a, &b));
            prop_assert_eq!(lcs_len(&b, &a), by_table(&a, &b));
        }
    }
}
