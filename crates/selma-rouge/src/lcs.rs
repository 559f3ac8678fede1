//! Length of the longest common subsequence, 64 table cells at a time.
#![allow(
    clippy::indexing_slicing,
    reason = "numbers of masks are handed out by `Strip::new`, which sizes the tables they index"
)]

/// Length of the longest common subsequence of two sequences.
///
/// Bit-parallel after Hyyrö, "Bit-Parallel LCS-length Computation Revisited" (2004): about `a.len() / 64 * b.len()`
/// word operations.
pub fn lcs_len(a: &[u32], b: &[u32]) -> usize {
    Pattern::new(a).lcs_len(b.iter().copied())
}

/// Words in one strip of a pattern.
const STRIP: usize = 16;

/// One sequence prepared for comparison with many others.
///
/// The masks of a long sequence, one for each symbol, would take memory by the square of its length; so they are cut into
/// strips, and a strip has masks only for the symbols in it.
#[derive(Debug)]
pub(crate) struct Pattern {
    strips: Vec<Strip>,
}

impl Pattern {
    pub(crate) fn new(pattern: &[u32]) -> Self {
        Self {
            strips: pattern.chunks(64 * STRIP).map(Strip::new).collect(),
        }
    }

    /// Length of the longest common subsequence of the pattern and `text`.
    pub(crate) fn lcs_len(&self, text: impl Iterator<Item = u32>) -> usize {
        match self.strips.as_slice() {
            [] => 0,
            [strip] if strip.words == 1 => strip.lcs_one_word(text),
            _ => {
                let mut column = self.first_column();
                for symbol in text {
                    self.advance(&mut column, symbol);
                }
                column.iter().map(|v| v.count_zeros() as usize).sum()
            }
        }
    }

    /// The column of the table before the first symbol of a text, see [`advance`](Self::advance).
    pub(crate) fn first_column(&self) -> Vec<u64> {
        vec![u64::MAX; self.strips.iter().map(|strip| strip.words).sum()]
    }

    /// Goes on by one symbol of the text.
    pub(crate) fn advance(&self, column: &mut [u64], symbol: u32) {
        let mut carry = false;
        for (strip, column) in self.strips.iter().zip(column.chunks_mut(STRIP)) {
            carry = strip.advance(column, symbol, carry);
        }
    }
}

/// At most `64 * STRIP` symbols of a pattern.
#[derive(Debug)]
struct Strip {
    /// Words in one mask.
    words: usize,
    /// An open-addressed table of symbols and the numbers of their masks, 0 where it is empty. Its length is a power of
    /// two, and at least half of it is empty.
    slots: Vec<(u32, u32)>,
    /// How far a hash is shifted to become an index of `slots`.
    shift: u32,
    /// Masks, mask `s` at `(s - 1) * words`; bit `i` is set where the strip's symbol `i` is the mask's.
    masks: Vec<u64>,
}

impl Strip {
    fn new(symbols: &[u32]) -> Self {
        let words = symbols.len().div_ceil(64);
        let slots = (2 * symbols.len()).next_power_of_two().max(2);
        let mut strip = Self {
            words,
            slots: vec![(0, 0); slots],
            shift: u64::BITS - slots.trailing_zeros(),
            masks: Vec::with_capacity(symbols.len() * usize::from(words == 1)),
        };
        let mut used = 0;
        for (position, &symbol) in symbols.iter().enumerate() {
            let index = strip.index(symbol);
            let slot = &mut strip.slots[index];
            if slot.1 == 0 {
                used += 1;
                *slot = (symbol, used);
                strip.masks.resize(strip.masks.len() + words, 0);
            }
            strip.masks[(slot.1 as usize - 1) * words + position / 64] |= 1 << (position % 64);
        }
        strip
    }

    /// Where the symbol is in the table, or would be.
    fn index(&self, symbol: u32) -> usize {
        // Fibonacci hashing: the product's upper bits spread evenly.
        let hash = u64::from(symbol).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut index = (hash >> self.shift) as usize;
        loop {
            let (other, mask) = self.slots[index];
            if mask == 0 || other == symbol {
                return index;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    /// The number of the symbol's mask, or 0 if the strip lacks it.
    fn slot(&self, symbol: u32) -> usize {
        self.slots[self.index(symbol)].1 as usize
    }

    /// A zero bit in `v` marks a row where the table's column steps up by one; bits past the pattern's end stay one.
    fn lcs_one_word(&self, text: impl Iterator<Item = u32>) -> usize {
        let mut v = u64::MAX;
        for symbol in text {
            let slot = self.slot(symbol);
            if slot != 0 {
                let u = v & self.masks[slot - 1];
                v = v.wrapping_add(u) | (v - u);
            }
        }
        v.count_zeros() as usize
    }

    /// The same with the addition's carry handed from word to word and from strip to strip; the subtraction never
    /// borrows, since `u` is part of `v`.
    fn advance(&self, column: &mut [u64], symbol: u32, mut carry: bool) -> bool {
        let slot = self.slot(symbol);
        if slot == 0 {
            for v in column.iter_mut() {
                if !carry {
                    break;
                }
                let (sum, over) = v.overflowing_add(1);
                carry = over;
                *v |= sum;
            }
            return carry;
        }
        let mask = &self.masks[(slot - 1) * self.words..slot * self.words];
        for (v, m) in column.iter_mut().zip(mask) {
            let u = *v & m;
            let (sum, over) = v.overflowing_add(u);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            carry = over || over_again;
            *v = sum | (*v - u);
        }
        carry
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
        for len in [63, 64, 65, 127, 128, 129, 200, 1023, 1024, 1025, 2049] {
            let same = vec![5; len];
            assert_eq!(lcs_len(&same, &same), len);
            let up: Vec<u32> = (0..len as u32).collect();
            let down: Vec<u32> = up.iter().rev().copied().collect();
            assert_eq!(lcs_len(&up, &up), len);
            assert_eq!(lcs_len(&up, &down), 1);
        }
    }

    #[test]
    fn carries_go_from_strip_to_strip() {
        for symbols in [2, 7, 300, 5000] {
            let sequence = |factor: u32| -> Vec<u32> {
                let number = |i: u32| (i * factor) ^ (i * i / 7);
                (0..2500).map(|i| number(i) % symbols).collect()
            };
            let (a, b) = (sequence(3), sequence(5));
            assert_eq!(lcs_len(&a, &b), by_table(&a, &b));
            assert_eq!(lcs_len(&b, &a), by_table(&a, &b));
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
