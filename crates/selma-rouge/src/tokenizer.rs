//! The two ways to cut a text into tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use crate::RougeError;

/// How a text becomes tokens.
///
/// In configuration files and on command lines the names are `rouge` and `unicode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokenizer {
    /// The tokenizer of Python's `rouge_score` 0.1.2 without stemming (`rouge_score/tokenize.py`): the text is
    /// lower-cased, and the tokens are the longest runs of `a-z` and `0-9`.
    ///
    /// It knows ASCII only: `don't` is `don` and `t`, `café` is `caf`, and a text in another script has no tokens.
    #[default]
    Rouge,
    /// Words of any script: NFKC normalization, lower-casing, then the words of Unicode Standard Annex 29.
    ///
    /// `don't` and `3.5` stay whole. Scripts written without spaces (Han, Kana) give one token per ideograph or run
    /// of Katakana, as the annex's default rules have it.
    Unicode,
}

impl Tokenizer {
    /// The tokens of `text`, in order; empty if it has none.
    pub fn tokenize(&self, text: &str) -> Vec<String> {
        match self {
            Self::Rouge => rouge_tokens(text),
            Self::Unicode => {
                // Lower-casing can take a text out of the normal form.
                let text = text.nfkc().collect::<String>().to_lowercase();
                let text: String = text.nfkc().collect();
                text.unicode_words().map(str::to_owned).collect()
            }
        }
    }

    /// The name used in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rouge => "rouge",
            Self::Unicode => "unicode",
        }
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tokenizer {
    type Err = RougeError;

    fn from_str(name: &str) -> Result<Self, RougeError> {
        match name {
            "rouge" => Ok(Self::Rouge),
            "unicode" => Ok(Self::Unicode),
            _ => Err(RougeError::UnknownTokenizer { found: name.into() }),
        }
    }
}

/// Lower-casing one `char` at a time differs from Python's `str.lower` only in the form of a final sigma, which is no
/// token character. The two characters outside ASCII that lower-case into it, `İ` and the Kelvin sign, come out as in
/// Python: `i` with a combining dot, and `k`.
fn rouge_tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            token.push(c);
        } else if !token.is_empty() {
            tokens.push(std::mem::take(&mut token));
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rouge_knows_ascii_only() {
        let cut = |text| Tokenizer::Rouge.tokenize(text);
        assert_eq!(
            cut("Don't_stop: 3.5 CAFÉs"),
            ["don", "t", "stop", "3", "5", "caf", "s"]
        );
        assert_eq!(cut("İstanbul \u{212A}elvin"), ["i", "stanbul", "kelvin"]);
        assert!(cut("狗 и кот ς ①").is_empty());
        assert!(cut("").is_empty());
    }

    #[test]
    fn only_two_characters_outside_ascii_lower_into_it() {
        let lowered: Vec<char> = ('\u{80}'..=char::MAX)
            .filter(|c| c.to_lowercase().any(|l| l.is_ascii_alphanumeric()))
            .collect();
        assert_eq!(lowered, ['\u{130}', '\u{212A}']);
    }

    #[test]
    fn unicode_knows_words_of_every_script() {
        let cut = |text| Tokenizer::Unicode.tokenize(text);
        assert_eq!(cut("Don't, CAFÉ — ﬁne!"), ["don't", "café", "fine"]);
        assert_eq!(cut("cafe\u{301}"), cut("café"));
        assert_eq!(cut("Красный КОТ"), ["красный", "кот"]);
        assert_eq!(cut("红猫"), ["红", "猫"]);
        assert!(cut("… !").is_empty());
    }

    #[test]
    fn names_read_back() {
        for tokenizer in [Tokenizer::Rouge, Tokenizer::Unicode] {
            assert_eq!(tokenizer.to_string().parse(), Ok(tokenizer));
            let json = serde_json::to_string(&tokenizer).unwrap();
            assert_eq!(json, format!("\"{tokenizer}\""));
            assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer);
        }
        let error = "Rouge".parse::<Tokenizer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown tokenizer `Rouge`, expected `rouge` or `unicode`"
        );
    }
}
