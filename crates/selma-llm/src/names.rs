//! People that a prompt names, by rule of thumb: [`NameFinder`].

use selma_rouge::Tokenizer;

use crate::lexicon::{Lexicon, word_lists};

/// Words between the parts of a name.
const PARTICLES: [&str; 11] = [
    "al", "da", "de", "del", "della", "der", "di", "du", "la", "van", "von",
];

/// Capitalised words that begin no name.
const NO_NAMES: [&str; 12] = [
    "A", "An", "All", "Her", "His", "I", "Its", "My", "Our", "That", "The", "Their",
];

/// Finds names of people in prompts. A rule of thumb, made for lists that people review.
///
/// Two things count: a name of a list (artists that users of image generators ask for; the list is ours, see
/// `words/artists.txt`), in any case; and capitalised words after words such as `by`. The second is not used for a text of which
/// more than half of the words are capitalised, as in titles. Names that stand elsewhere are missed, and places are taken for
/// people (`a view of New York`).
#[derive(Debug, Clone)]
pub struct NameFinder {
    artists: Lexicon,
}

impl NameFinder {
    /// With the built-in list.
    pub fn builtin() -> Self {
        let mut lists = word_lists(include_str!("../words/artists.txt"), Tokenizer::Unicode);
        let artists = lists.pop().map(|(_, artists)| artists);
        Self {
            artists: artists.unwrap_or_else(|| Lexicon::new(Tokenizer::Unicode)),
        }
    }

    /// The first artist that a text names: one of the list, else capitalised words after `by` or `style of`.
    pub fn artist(&self, text: &str) -> Option<String> {
        let listed = self.artists.find(text);
        let listed = listed.first().map(|name| (*name).to_owned());
        listed.or_else(|| capitalised(text, true).into_iter().next())
    }

    /// All people that a text names: artists as [`NameFinder::artist`] finds them, and two or more capitalised words after `of`,
    /// `like`, `featuring` or `starring`. None is there twice.
    pub fn people(&self, text: &str) -> Vec<String> {
        let listed = self.artists.find(text);
        let mut people: Vec<String> = Vec::new();
        let listed = listed.into_iter().map(str::to_owned);
        for name in listed.chain(capitalised(text, false)) {
            let known = people.iter().any(|other| same_name(other, &name));
            if !known {
                people.push(name);
            }
        }
        people
    }
}

/// Whether one name is the other in another case, or begins with its words.
fn same_name(a: &str, b: &str) -> bool {
    let (a, b) = (
        format!("{} ", a.to_lowercase()),
        format!("{} ", b.to_lowercase()),
    );
    a.starts_with(&b) || b.starts_with(&a)
}

/// Names that stand after a word that announces an artist or, unless `artists` alone are wanted, any person.
fn capitalised(text: &str, artists: bool) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let capitals = words
        .iter()
        .filter(|word| is_capitalised(bare(word)))
        .count();
    if 2 * capitals > words.len() {
        return Vec::new();
    }
    let mut names = Vec::new();
    let mut before = "";
    let mut rest = words.as_slice();
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let lower = word.to_lowercase();
        let least = match lower.as_str() {
            "by" => Some(1),
            "of" if before == "style" => Some(1),
            "of" | "like" | "featuring" | "starring" if !artists => Some(2),
            _ => None,
        };
        before = if lower == "style" { "style" } else { "" };
        let Some(least) = least else { continue };
        // "by A and B" names two.
        loop {
            let (name, length) = name_at(rest);
            if name.len() < least {
                break;
            }
            names.push(name.join(" "));
            rest = rest.get(length..).unwrap_or_default();
            match rest.split_first() {
                Some((&("and" | "&"), after)) => rest = after,
                _ => break,
            }
        }
    }
    names
}

/// The capitalised words that a text begins with, up to punctuation, and how many words they take.
fn name_at<'a>(words: &[&'a str]) -> (Vec<&'a str>, usize) {
    let mut name = Vec::new();
    let mut length = 0;
    for (at, word) in words.iter().enumerate() {
        let part = bare(word);
        if is_capitalised(part) && !NO_NAMES.contains(&part) {
            name.push(part);
            length = at + 1;
        } else if PARTICLES.contains(&part) {
            name.push(part);
        } else {
            break;
        }
        // A full stop behind one letter is that of an initial.
        let initial = part.chars().count() == 1 && word.ends_with('.');
        if word.ends_with(|c: char| c.is_ascii_punctuation()) && !initial {
            break;
        }
    }
    name.truncate(length);
    (name, length)
}

/// A word without the punctuation around it and the `'s` at its end.
fn bare(word: &str) -> &str {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    let word = word
        .strip_suffix("'s")
        .or_else(|| word.strip_suffix("’s"))
        .unwrap_or(word);
    word.trim_end_matches(|c: char| !c.is_alphanumeric())
}

fn is_capitalised(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artists_are_found_in_a_list_and_after_by() {
        let names = NameFinder::builtin();
        for (text, expected) in [
            (
                "a castle, GREG RUTKOWSKI, artstation",
                Some("greg rutkowski"),
            ),
            ("fog over hills, artgerm and wlop", Some("artgerm")),
            ("a still life by Clara Peeters, oil", Some("Clara Peeters")),
            ("a bridge by Hokusai's pupil", Some("hokusai")),
            ("a tree by Hoku's pupil", Some("Hoku")),
            ("a house by Jan van der Heyden.", Some("Jan van der Heyden")),
            ("in the style of Zdzislaw, dark", Some("Zdzislaw")),
            ("a cat by J. Doe and a dog", Some("J Doe")),
            ("a house by the sea", None),
            ("a bench stands by The river", None),
            ("a portrait of Walter White, smoking", None),
            ("a House By The Sea In Winter", None),
            ("lit by candles", None),
            ("by", None),
            ("", None),
        ] {
            assert_eq!(names.artist(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn people_are_found_after_other_words_too() {
        let names = NameFinder::builtin();
        for (text, expected) in [
            (
                "a calm portrait of Walter White, smoking a pipe",
                &["Walter White"][..],
            ),
            ("a photo of Paris at night in winter", &[]),
            (
                "a robot by Tom Bagshaw and Ann Other, in the style of syd mead",
                &["tom bagshaw", "syd mead", "Ann Other"],
            ),
            (
                "a stage with a singer like Edith Piaf at night",
                &["Edith Piaf"],
            ),
            (
                "a long poem by Ann and Anna Bell and then one by anna",
                &["Ann", "Anna Bell"],
            ),
            ("a group of motorcycle riders", &[]),
            ("a plate of ", &[]),
        ] {
            assert_eq!(names.people(text), expected, "{text}");
        }
    }

    #[test]
    fn the_list_has_each_name_once() {
        let list: Vec<&str> = include_str!("../words/artists.txt")
            .lines()
            .filter(|line| !line.starts_with(['#', '[']))
            .collect();
        let different: std::collections::HashSet<&str> = list.iter().copied().collect();
        assert!(list.len() >= 100);
        assert_eq!(list.len(), different.len());
        let names = NameFinder::builtin();
        for name in list {
            assert_eq!(name.to_lowercase(), name);
            assert_eq!(names.artist(name).as_deref(), Some(name));
        }
    }
}
