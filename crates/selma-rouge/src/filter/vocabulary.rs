//! Texts as numbers.

use std::collections::HashMap;

use crate::Tokenizer;
use crate::growth::push;
use crate::words::Words;

/// Numbers of tokens, and of their repetitions within a text, from one counter.
///
/// A bag of tokens becomes a set when the second copy of a token is an element of its own, the third another, and so on.
/// The first copy's element is the token itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Vocabulary {
    words: Words,
    /// Elements of the words.
    tokens: Vec<u32>,
    /// Elements of the copies after the first: by the token and the number of copies before, at least 1.
    repeats: HashMap<(u32, u32), u32>,
}

/// A text as numbers. What the vocabulary lacks has the next free numbers.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The tokens in the order of the text.
    pub(super) tokens: Vec<u32>,
    /// The tokens and their repetitions, each once, in no order.
    pub(super) elements: Vec<u32>,
    /// Their parities, see [`sketch`].
    pub(super) sketch: u128,
    /// What the vocabulary lacks, in the order of the numbers.
    pub(super) new: Vec<New>,
}

/// A number that the vocabulary lacks.
#[derive(Debug)]
pub(super) enum New {
    Word(Box<str>),
    Repeat(u32, u32),
}

impl Vocabulary {
    /// Number of numbers given out.
    pub(super) fn len(&self) -> usize {
        self.words.len() + self.repeats.len()
    }

    pub(super) fn encode(&self, text: &str, tokenizer: Tokenizer) -> Encoded {
        let known = self.len();
        let mut fresh = Words::default();
        let mut new = Vec::new();
        let mut tokens = Vec::new();
        tokenizer.for_each(text, |token| {
            let word = self.words.get(token);
            let id = word.and_then(|word| self.tokens.get(word as usize).copied());
            tokens.push(id.unwrap_or_else(|| {
                let word = fresh.number(token);
                if word as usize == new.len() {
                    new.push(New::Word(token.into()));
                }
                known as u32 + word
            }));
        });
        let mut elements = Vec::with_capacity(tokens.len());
        for_each_copy(&tokens, |token, copy| {
            let repeat = || self.repeats.get(&(token, copy)).copied();
            let element = if copy == 0 { Some(token) } else { repeat() };
            elements.push(element.unwrap_or_else(|| {
                let id = (known + new.len()) as u32;
                new.push(New::Repeat(token, copy));
                id
            }));
        });
        Encoded {
            sketch: sketch(&elements),
            tokens,
            elements,
            new,
        }
    }

    /// The elements of a text whose numbers are all known.
    pub(super) fn elements(&self, tokens: &[u32]) -> Vec<u32> {
        let mut elements = Vec::with_capacity(tokens.len());
        for_each_copy(tokens, |token, copy| {
            let repeat = || self.repeats.get(&(token, copy)).copied();
            elements.extend(if copy == 0 { Some(token) } else { repeat() });
        });
        elements
    }

    /// Makes the numbers of an encoded text known. The vocabulary must be as it was when the text was encoded.
    pub(super) fn extend(&mut self, new: Vec<New>) {
        for new in new {
            let id = self.len() as u32;
            match new {
                New::Word(word) => {
                    self.words.number(&word);
                    push(&mut self.tokens, id);
                }
                New::Repeat(token, copy) => {
                    self.repeats.insert((token, copy), id);
                }
            }
        }
    }
}

/// Calls `visit` with each token and the number of its copies that came before.
fn for_each_copy(tokens: &[u32], mut visit: impl FnMut(u32, u32)) {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    let mut copy = 0;
    let mut previous = None;
    for token in sorted {
        copy = if previous == Some(token) { copy + 1 } else { 0 };
        previous = Some(token);
        visit(token, copy);
    }
}

/// Parities of a set of elements in 128 bits (the bitmap filter of Sandes, Teodoro and Melo, arXiv 1711.07295): each
/// element that one set has and another lacks sets at most one bit in which their sketches differ.
fn sketch(elements: &[u32]) -> u128 {
    elements.iter().fold(0, |bits, &element| {
        // Fibonacci hashing: the product's upper bits spread evenly.
        bits ^ 1_u128 << (u64::from(element).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_elements_of_their_own() {
        let mut vocabulary = Vocabulary::default();
        let encode = |vocabulary: &Vocabulary, text| vocabulary.encode(text, Tokenizer::Rouge);
        let first = encode(&vocabulary, "a b a c a");
        assert_eq!(first.tokens, [0, 1, 0, 2, 0]);
        assert_eq!(first.elements, [0, 3, 4, 1, 2]);
        assert_eq!(first.new.len(), 5);
        vocabulary.extend(first.new);
        assert_eq!(vocabulary.len(), 5);
        assert_eq!(vocabulary.elements(&first.tokens), first.elements);
        let again = encode(&vocabulary, "c a d a d");
        assert_eq!(again.tokens, [2, 0, 5, 0, 5]);
        assert_eq!(again.elements, [0, 3, 2, 5, 6]);
        assert_eq!(again.new.len(), 2);
        assert_eq!((again.sketch ^ first.sketch).count_ones() % 2, 0);
    }
}
