//! Terms that no prompt may have: [`BlockList`].

use std::path::Path;

use selma_durable::DurableError;
use selma_rouge::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::LlmError;
use crate::lexicon::Lexicon;

/// Words and phrases that prompts must not have, whole words in any case: `cat` blocks `A CAT!`, not `cats` or `category`.
///
/// In scripts that are written without spaces every character or syllable is a word
/// ([`Tokenizer::Unicode`](selma_rouge::Tokenizer::Unicode)), so that a term is found wherever it stands. In a configuration it
/// is a list of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct BlockList {
    terms: Vec<String>,
    lexicon: Lexicon,
}

impl BlockList {
    /// A list of these terms.
    ///
    /// # Errors
    /// [`LlmError::Config`] for a term without a word.
    pub fn new<S: Into<String>>(terms: impl IntoIterator<Item = S>) -> Result<Self, LlmError> {
        let mut list = Self::default();
        for term in terms {
            let term = term.into();
            list.add(&term).map_err(|reason| LlmError::Config {
                field: "block_list",
                reason,
            })?;
        }
        Ok(list)
    }

    /// Reads a file with one term a line. Empty lines are skipped, and lines that begin with `#` are comments.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read, [`LlmError::Line`] with the number of the first line that is not
    /// UTF-8 or has no word.
    pub fn load(path: &Path) -> Result<Self, LlmError> {
        let bytes = std::fs::read(path).map_err(DurableError::io("read block list", path))?;
        let mut list = Self::default();
        for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let added = std::str::from_utf8(bytes)
                .map_err(|_| "is not UTF-8".to_owned())
                .map(|term| term.trim_start_matches('\u{feff}').trim())
                .and_then(|term| match term {
                    "" => Ok(()),
                    term if term.starts_with('#') => Ok(()),
                    term => list.add(term),
                });
            added.map_err(|reason| LlmError::Line {
                path: path.to_owned(),
                line,
                reason,
            })?;
        }
        Ok(list)
    }

    fn add(&mut self, term: &str) -> Result<(), String> {
        if !self.lexicon.add(term) {
            return Err(format!("has no word in the term {term:?}"));
        }
        self.terms.push(term.to_owned());
        Ok(())
    }

    /// The terms, in order.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// The first term that stands in a text.
    pub fn find(&self, text: &str) -> Option<&str> {
        // Most runs have none, and need no words.
        if self.terms.is_empty() {
            return None;
        }
        self.lexicon.find(text).first().copied()
    }
}

impl Default for BlockList {
    fn default() -> Self {
        Self {
            terms: Vec::new(),
            lexicon: Lexicon::new(Tokenizer::Unicode),
        }
    }
}

impl TryFrom<Vec<String>> for BlockList {
    type Error = LlmError;

    fn try_from(terms: Vec<String>) -> Result<Self, LlmError> {
        Self::new(terms)
    }
}

impl From<BlockList> for Vec<String> {
    fn from(list: BlockList) -> Self {
        list.terms
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn whole_words_in_any_case_are_found() {
        let list = BlockList::new(["cat", "New York", "STRASSE", "血"]).unwrap();
        assert_eq!(list.find("A CAT!"), Some("cat"));
        assert_eq!(list.find("new   york at night"), Some("New York"));
        assert_eq!(list.find("eine Straße"), Some("STRASSE"));
        assert_eq!(list.find("流血了"), Some("血"));
        for clean in ["cats", "category", "a new bridge in York", "concat", ""] {
            assert_eq!(list.find(clean), None, "{clean}");
        }
        assert_eq!(BlockList::default().find("cat"), None);
    }

    #[test]
    fn files_have_a_term_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block.txt");
        fs::write(&path, "\u{feff}# ours\r\ngore\r\n\r\n  two words \nend").unwrap();
        let list = BlockList::load(&path).unwrap();
        assert_eq!(list.terms(), ["gore", "two words", "end"]);
        fs::write(&path, "").unwrap();
        assert!(BlockList::load(&path).unwrap().terms().is_empty());
        for (bytes, expected) in [
            (&b"gore\n\xff\xfe\n"[..], "block.txt, line 2: is not UTF-8"),
            (
                b"\n\n!!!\n",
                "block.txt, line 3: has no word in the term \"!!!\"",
            ),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = BlockList::load(&path).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        let error = BlockList::load(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read block list "));
        let error = BlockList::new([" "]).unwrap_err().to_string();
        assert_eq!(error, "setting `block_list` has no word in the term \" \"");
    }

    #[test]
    fn a_huge_line_is_a_term_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block.txt");
        fs::write(&path, "a ".repeat(500_000)).unwrap();
        assert_eq!(BlockList::load(&path).unwrap().find("a a a"), None);
    }
}
