//! Lists of words and phrases, and where a text has them.

use std::collections::HashMap;

use selma_rouge::Tokenizer;

/// Words and phrases. What counts as the same word is the tokenizer's business.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lexicon {
    tokenizer: Tokenizer,
    /// By first token.
    terms: HashMap<String, Vec<Term>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    text: String,
    /// The tokens after the first.
    rest: Vec<String>,
}

impl Lexicon {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            terms: HashMap::new(),
        }
    }

    /// Adds a word or phrase; false if there is no word in it.
    pub(crate) fn add(&mut self, term: &str) -> bool {
        let mut tokens = tokens(self.tokenizer, term).into_iter();
        let Some(first) = tokens.next() else {
            return false;
        };
        self.terms.entry(first).or_default().push(Term {
            text: term.to_owned(),
            rest: tokens.collect(),
        });
        true
    }

    /// The terms of a text, in order. Of several at one place the longest counts, of the same words the first added.
    pub(crate) fn find(&self, text: &str) -> Vec<&str> {
        self.find_in(&tokens(self.tokenizer, text))
    }

    /// The same for the [`tokens`] of a text, by this list's tokenizer.
    pub(crate) fn find_in(&self, tokens: &[String]) -> Vec<&str> {
        let mut found = Vec::new();
        let mut rest = tokens;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let here = self.terms.get(first).map_or(&[][..], Vec::as_slice);
            let fits = here.iter().filter(|term| after.starts_with(&term.rest));
            // `max_by_key` would take the last of equals.
            if let Some(term) = fits.rev().max_by_key(|term| term.rest.len()) {
                found.push(term.text.as_str());
                rest = after.get(term.rest.len()..).unwrap_or_default();
            }
        }
        found
    }
}

/// The tokens of a text, without the `'s` of possession.
pub(crate) fn tokens(tokenizer: Tokenizer, text: &str) -> Vec<String> {
    let mut tokens = tokenizer.tokenize(text);
    for token in &mut tokens {
        let bare = token
            .strip_suffix("'s")
            .or_else(|| token.strip_suffix("’s"));
        if let Some(length) = bare.map(str::len) {
            token.truncate(length);
        }
    }
    tokens
}

/// The lists of a text by the names of their sections, in order: one term a line below `[section]`; `#` begins a comment.
pub(crate) fn word_lists(text: &str, tokenizer: Tokenizer) -> Vec<(&str, Lexicon)> {
    let mut lists: Vec<(&str, Lexicon)> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[') {
            lists.push((name.trim_end_matches(']'), Lexicon::new(tokenizer)));
        } else if let Some((_, list)) = lists.last_mut() {
            // An empty line has no word.
            list.add(line);
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_the_longest_first() {
        let mut lexicon = Lexicon::new(Tokenizer::Unicode);
        for term in ["man", "old man", "Orange", "orange", "红猫"] {
            assert!(lexicon.add(term));
        }
        assert!(!lexicon.add(" … "));
        let find = |text| lexicon.find(text);
        assert_eq!(find("An OLD man, a man and a woman"), ["old man", "man"]);
        assert_eq!(find("old orange man"), ["Orange", "man"]);
        assert_eq!(find("manly oranges, old"), [""; 0]);
        let possessive = "the man's and the old man’s house";
        assert_eq!(find(possessive), ["man", "old man"]);
        assert_eq!(find("一只红猫"), ["红猫"]);
        assert_eq!(find(""), [""; 0]);
    }

    #[test]
    fn word_lists_have_sections_and_comments() {
        let text = "# ours\n[a]\none # first\n\ntwo words\r\n[b]\n  three\n";
        let lists = word_lists(text, Tokenizer::Rouge);
        let found: Vec<(&str, Vec<&str>)> = lists
            .iter()
            .map(|(name, list)| (*name, list.find("one, two words; three")))
            .collect();
        assert_eq!(
            found,
            [("a", vec!["one", "two words"]), ("b", vec!["three"])]
        );
    }
}
