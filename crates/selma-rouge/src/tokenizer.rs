//! The two ways to cut a text into tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use crate::RougeError;
use crate::stemmer::stem;

/// How a text becomes tokens.
///
/// In configuration files and on command lines the names are `rouge`, `rouge-stemmed` and `unicode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// The tokenizer of Python's `rouge_score` 0.1.2 without stemming (`rouge_score/tokenize.py`): the text is
    /// lower-cased, and the tokens are the longest runs of `a-z` and `0-9`.
    ///
    /// It knows ASCII only: `don't` is `don` and `t`, `café` is `caf`, and a text in another script has no tokens.
    #[default]
    Rouge,
    /// The same with `use_stemmer=True`: tokens of more than three characters become their stems, by the Porter stemmer
    /// as NLTK has it.
    RougeStemmed,
    /// Words of any script, and emoji: NFKC normalization, case folding, then the words of Unicode Standard Annex 29.
    ///
    /// `don't` and `3.5` stay whole. Scripts written without spaces give one token per ideograph (Han), syllable
    /// (Hiragana, Thai) or run (Katakana), as the annex's default rules have it. Emoji and other symbols of the blocks
    /// for pictures are tokens, in the form without variation selectors; punctuation is none.
    Unicode,
}

impl Tokenizer {
    /// The tokens of `text`, in order; empty if it has none.
    pub fn tokenize(&self, text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        self.for_each(text, |token| tokens.push(token.to_owned()));
        tokens
    }

    /// Calls `visit` with each token of `text`, in order.
    pub(crate) fn for_each(&self, text: &str, mut visit: impl FnMut(&str)) {
        match self {
            Self::Rouge => for_each_rouge_token(text, visit),
            Self::RougeStemmed => for_each_rouge_token(text, |token| {
                // Shorter tokens stay as they are.
                if token.len() > 3 {
                    visit(&stem(token));
                } else {
                    visit(token);
                }
            }),
            Self::Unicode => for_each_word(text, visit),
        }
    }

    /// The name used in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rouge => "rouge",
            Self::RougeStemmed => "rouge-stemmed",
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
            "rouge-stemmed" => Ok(Self::RougeStemmed),
            "unicode" => Ok(Self::Unicode),
            _ => Err(RougeError::UnknownTokenizer { found: name.into() }),
        }
    }
}

/// Lower-casing one `char` at a time differs from Python's `str.lower` only in the form of a final sigma, which is no
/// token character. The two characters outside ASCII that lower-case into it, `İ` and the Kelvin sign, come out as in
/// Python: `i` with a combining dot, and `k`.
fn for_each_rouge_token(text: &str, mut visit: impl FnMut(&str)) {
    let mut token = String::new();
    let mut flush = |token: &mut String| {
        if !token.is_empty() {
            token.make_ascii_lowercase();
            visit(token);
            token.clear();
        }
    };
    let mut rest = text;
    while let Some(end) = rest.bytes().position(|byte| !byte.is_ascii_alphanumeric()) {
        let (run, tail) = rest.split_at(end);
        token.push_str(run);
        let mut tail = tail.chars();
        match tail.next() {
            Some(c) if !c.is_ascii() => {
                for c in c.to_lowercase() {
                    if c.is_ascii_alphanumeric() {
                        token.push(c);
                    } else {
                        flush(&mut token);
                    }
                }
            }
            _ => flush(&mut token),
        }
        rest = tail.as_str();
    }
    token.push_str(rest);
    flush(&mut token);
}

fn for_each_word(text: &str, mut visit: impl FnMut(&str)) {
    let folded = text
        .nfkc()
        .filter(|&c| !is_variation_selector(c))
        .flat_map(fold);
    // Folding can take a text out of the normal form.
    let text: String = folded.nfkc().collect();
    let words = text.split_word_bounds();
    words
        .filter(|word| word.chars().any(|c| c.is_alphanumeric() || is_picture(c)))
        .for_each(&mut visit);
}

/// Case folding by way of the upper case, so that `ß` is `ss` and both forms of the small sigma are one. Characters in NFKC
/// become equal if and only if Unicode's full case folding makes them equal; for Cherokee it chooses the other case.
fn fold(c: char) -> impl Iterator<Item = char> {
    // The capital sharp s has no upper case but its lower case has. The dotless ı, whose upper case is I, folds to itself.
    let upper = move |c: char| c.to_uppercase().flat_map(char::to_lowercase);
    let folded = (c != 'ı').then(|| c.to_lowercase().flat_map(upper));
    folded.into_iter().flatten().chain((c == 'ı').then_some(c))
}

/// Selectors of the forms of emoji, black and white or coloured.
fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{FE0E}' | '\u{FE0F}')
}

/// Symbols of the blocks for pictures: arrows, technical, geometric and miscellaneous ones, dingbats, and those of plane 1,
/// regional indicators included.
fn is_picture(c: char) -> bool {
    matches!(
        c,
        '\u{2190}'..='\u{21FF}'
            | '\u{2300}'..='\u{23FF}'
            | '\u{25A0}'..='\u{27BF}'
            | '\u{2B00}'..='\u{2BFF}'
            | '\u{1F000}'..='\u{1FAFF}'
    )
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
        assert!(cut("… ! — ， 。 ¿").is_empty());
    }

    #[test]
    fn unicode_folds_case() {
        let cut = |text| Tokenizer::Unicode.tokenize(text);
        assert_eq!(cut("NAÏVE STRASSE"), cut("naïve Straße"));
        assert_eq!(cut("STRAẞE"), ["strasse"]);
        assert_eq!(cut("ΟΔΥΣΣΕΎΣ"), cut("οδυσσεύς"));
        assert_eq!(cut("ſtop K"), ["stop", "k"]);
        assert_ne!(cut("ı"), cut("i"));
        assert_eq!(cut("İ"), cut("i\u{307}"));
    }

    #[test]
    fn unicode_sees_emoji() {
        let cut = |text| Tokenizer::Unicode.tokenize(text);
        assert_eq!(cut("a 🐈 on a 🛹!"), ["a", "🐈", "on", "a", "🛹"]);
        assert_eq!(cut("❤\u{FE0F}"), cut("❤"));
        assert_eq!(cut("🐈🐈"), ["🐈", "🐈"]);
        // One picture of three, joined; a flag; a skin tone.
        for one in ["👩\u{200D}🚀", "🇯🇵", "👋🏽"] {
            assert_eq!(cut(one), [one]);
        }
    }

    #[test]
    fn unicode_sees_every_script() {
        for text in [
            "قطة حمراء",
            "एक लाल बिल्ली",
            "빨간 고양이",
            "แมวสีแดง",
            "あかいねこ",
            "アカイ",
        ] {
            assert!(!Tokenizer::Unicode.tokenize(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn names_read_back() {
        for tokenizer in [
            Tokenizer::Rouge,
            Tokenizer::RougeStemmed,
            Tokenizer::Unicode,
        ] {
            assert_eq!(
                tokenizer.to_string().parse::<Tokenizer>().unwrap(),
                tokenizer
            );
            let json = serde_json::to_string(&tokenizer).unwrap();
            assert_eq!(json, format!("\"{tokenizer}\""));
            assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer);
        }
        let error = "Rouge".parse::<Tokenizer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown tokenizer `Rouge`, expected `rouge`, `rouge-stemmed` or `unicode`"
        );
    }
}
