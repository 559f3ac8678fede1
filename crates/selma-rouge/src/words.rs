//! Numbers for words.

use crate::growth::{growth, push};

/// Words and their numbers, counted from 0, in three blocks of memory.
///
/// A hash map of strings has an allocation for each, and a hash that is made against attackers takes longer than all the
/// rest of a comparison of two short texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    /// The words one after the other.
    text: String,
    /// Where each ends in `text`.
    ends: Vec<usize>,
    /// An open-addressed table of numbers plus 1, or 0 where it is empty. Its length is a power of two or zero, and at
    /// least a quarter of it is empty.
    table: Vec<u32>,
}

impl Words {
    /// Number of words.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The number of `word` if it has one.
    pub(crate) fn get(&self, word: &str) -> Option<u32> {
        self.at(self.place(word))
    }

    /// The number of `word`, which is the next one if it has none.
    pub(crate) fn number(&mut self, word: &str) -> u32 {
        if 4 * self.len() >= 3 * self.table.len() {
            self.table = vec![0; (2 * self.table.len()).max(64)];
            for number in 0..self.len() as u32 {
                let place = self.word(number).map(|word| self.place(word));
                self.enter(place, number);
            }
        }
        let place = self.place(word);
        if let Some(number) = self.at(place) {
            return number;
        }
        let number = self.len() as u32;
        let more = growth(self.text.len(), self.text.capacity(), word.len());
        self.text.reserve_exact(more);
        self.text.push_str(word);
        push(&mut self.ends, self.text.len());
        self.enter(Some(place), number);
        number
    }

    fn enter(&mut self, place: Option<usize>, number: u32) {
        if let Some(slot) = place.and_then(|place| self.table.get_mut(place)) {
            *slot = number + 1;
        }
    }

    fn at(&self, place: usize) -> Option<u32> {
        self.table.get(place)?.checked_sub(1)
    }

    fn word(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..*self.ends.get(number)?)
    }

    /// Where `word` is in the table, or would be.
    fn place(&self, word: &str) -> usize {
        let last = self.table.len().saturating_sub(1);
        let mut place = hash(word) as usize & last;
        while let Some(number) = self.at(place) {
            if self.word(number) == Some(word) {
                break;
            }
            place = (place + 1) & last;
        }
        place
    }
}

/// FNV-1a, its bits mixed once more so that the lower ones depend on all.
fn hash(word: &str) -> u64 {
    let hash = word.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_while_the_table_grows() {
        let mut words = Words::default();
        assert_eq!(words.get("w0"), None);
        for round in 0..2 {
            for number in 0..5000 {
                assert_eq!(words.number(&format!("w{number}")), number, "{round}");
            }
        }
        assert_eq!(words.len(), 5000);
        assert_eq!(words.get("w4999"), Some(4999));
        assert_eq!(words.get("w5000"), None);
        assert_eq!(words.number(""), 5000);
        assert_eq!(words.get(""), Some(5000));
    }
}
