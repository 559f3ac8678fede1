//! From an answer to prompts: [`Parser`] and what it finds, [`ParsedList`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::json_list::parse_json_list;
use crate::list::{parse_numbered_list, without_thoughts};

/// What a [`Parser`] found in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParsedList {
    /// The prompts, in order. Of [`Parser::Tolerant`]: each on one line, without number, quotes and emphasis.
    pub items: Vec<String>,
    /// Lines with text that belong to no item: chatter before, between and after.
    pub skipped: usize,
    /// Items whose number is not one more than that of the item before (the first: not the number asked for). They
    /// are in `items`.
    pub misnumbered: usize,
    /// Numbers without a text. They are not in `items`.
    pub empty: usize,
    /// Characters taken out: control characters, byte order marks, zero-width spaces, and marks that turn the direction
    /// of writing.
    pub removed: usize,
    /// Whether the answer was JSON, of which each item is known to be whole.
    pub json: bool,
    /// Whether the answer was JSON that ended before its end. What was begun last is not in `items`.
    pub unfinished: bool,
}

/// How prompts are found in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Parser {
    /// JSON, else a numbered list, else bullets, however they are dressed; see [`parse_numbered_list`] and
    /// [`parse_json_list`](crate::parse_json_list).
    #[default]
    Tolerant,
    /// As `post_process_gpt4_response` of SELMA's `llm/prompt_generation.py` does it, to the letter.
    ///
    /// A line counts if it contains the number that is due, a full stop and a space, wherever that stands; then the text
    /// between its first and its second occurrence is the prompt and the next number is due. So one number that the LLM left
    /// out ends the reading, and a prompt that repeats its own number is cut there. Nothing is trimmed.
    ///
    /// The one difference: the code keeps prompts without a text, which no later stage could use; here they are counted as
    /// [`ParsedList::empty`].
    SelmaOfficial,
}

impl Parser {
    /// Reads an answer whose list should begin with the number `first`.
    pub fn parse(self, text: &str, first: usize) -> ParsedList {
        match self {
            Self::Tolerant => {
                let (text, removed) = clean(text);
                let text = without_thoughts(&text);
                let list = parse_json_list(text, first);
                let list = list.unwrap_or_else(|| parse_numbered_list(text, first));
                ParsedList {
                    removed: removed + list.removed,
                    ..list
                }
            }
            Self::SelmaOfficial => parse_as_selma(text, first),
        }
    }
}

fn parse_as_selma(text: &str, first: usize) -> ParsedList {
    let mut list = ParsedList::default();
    let mut due = first;
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        match line.split(&format!("{due}. ")).nth(1) {
            Some(caption) => {
                due += 1;
                if caption.trim().is_empty() {
                    list.empty += 1;
                } else {
                    list.items.push(caption.to_owned());
                }
            }
            None => list.skipped += 1,
        }
    }
    list
}

/// The text with `\n` for every line end, other breaks and tabs as spaces, and without the characters that
/// [`ParsedList::removed`] counts.
pub(crate) fn clean(text: &str) -> (Cow<'_, str>, usize) {
    if !text.contains(|c| is_break(c) || is_removed(c)) {
        return (Cow::Borrowed(text), 0);
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut removed = 0;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            // A line end follows, which says the same.
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => cleaned.push('\n'),
            c if is_break(c) => cleaned.push(' '),
            c if is_removed(c) => removed += 1,
            c => cleaned.push(c),
        }
    }
    (Cow::Owned(cleaned), removed)
}

/// What Unicode lets end a line or paragraph, besides `\n`.
fn is_break(c: char) -> bool {
    matches!(
        c,
        '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

fn is_removed(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{feff}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerant(text: &str) -> ParsedList {
        Parser::Tolerant.parse(text, 4)
    }

    #[test]
    fn the_official_parser_has_its_quirks() {
        // What the Python lines give for three examples, i.e. `idx` beginning at 3.
        let cases: [(&str, &[&str], usize, usize); 17] = [
            (
                "4. A dog.\n\n5. A cat.\n6. A cow.",
                &["A dog.", "A cat.", "A cow."],
                0,
                0,
            ),
            ("\n4. A dog.\n", &["A dog."], 0, 0),
            // The marker may stand anywhere.
            ("Sure! 4. A dog.\n  5. A cat.", &["A dog.", "A cat."], 0, 0),
            ("- **4. A dog.**", &["A dog.**"], 0, 0),
            // The rest of the line after a second marker is lost.
            ("4. A train, 4. of May.", &["A train, "], 0, 0),
            // "14. " contains "4. ".
            ("14. A dog.", &["A dog."], 0, 0),
            ("4. Train 14. to Rome.", &["Train 1"], 0, 0),
            // A wrong number ends the reading: 4 and 5 are there, 6 never comes.
            (
                "4. A dog.\n5. A cat.\n7. A cow.\n8. A hen.",
                &["A dog.", "A cat."],
                2,
                0,
            ),
            ("1. A dog.\n2. A cat.\n3. A cow.", &[], 3, 0),
            ("1. a\n2. b\n3. c\n4. d\n5. e", &["d", "e"], 3, 0),
            // Only a full stop and a space make a number.
            ("4) A dog.\n4.A cat.\n4.\tA cow.", &[], 3, 0),
            ("4. A dog. 5. A cat.", &["A dog. 5. A cat."], 0, 0),
            // Nothing is trimmed, and "\r" belongs to the line.
            (
                "4.  A dog. \r\n5. A cat.\r\n",
                &[" A dog. \r", "A cat.\r"],
                0,
                0,
            ),
            ("4. \"A dog\"", &["\"A dog\""], 0, 0),
            // The continued line is lost.
            ("4. A dog\nruns.\n5. A cat.", &["A dog", "A cat."], 1, 0),
            // The code keeps the empty text.
            ("4. \n5. A cat.", &["A cat."], 0, 1),
            ("", &[], 0, 0),
        ];
        for (text, items, skipped, empty) in cases {
            let list = Parser::SelmaOfficial.parse(text, 4);
            assert_eq!(list.items, items, "{text:?}");
            assert_eq!((list.skipped, list.empty), (skipped, empty), "{text:?}");
        }
    }

    #[test]
    fn json_comes_before_lists() {
        assert_eq!(tolerant("[\"A dog\", \"4. A cat\"]").items.len(), 2);
        assert_eq!(tolerant("4. A dog\n5. [\"a\", \"b\"]").items.len(), 2);
        assert_eq!(tolerant("4. A sign saying [\"STOP\"]").items.len(), 1);
        assert_eq!(tolerant("[4] A dog\n[5] A cat").items, ["A dog", "A cat"]);
        let thought = "<think>[\"draft\"]</think>\n4. A dog";
        assert_eq!(tolerant(thought).items, ["A dog"]);
    }

    #[test]
    fn line_ends_and_control_characters() {
        let list =
            tolerant("\u{feff}4. A d\u{0}og\u{200b}.\r\n5. A\u{b}cat.\r6. A \u{202e}cow.\u{7f}");
        assert_eq!(list.items, ["A dog.", "A cat.", "A cow."]);
        assert_eq!((list.removed, list.skipped), (5, 0));
        // Joiners make emoji and letters of many scripts.
        let family = "4. 👩\u{200d}🚀 می\u{200c}خواهم";
        assert_eq!(tolerant(family).items, ["👩\u{200d}🚀 می\u{200c}خواهم"]);
        assert_eq!(tolerant(family).removed, 0);
    }

    #[test]
    fn any_text_gives_clean_items() {
        use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

        const PIECES: [&str; 26] = [
            "4. ",
            "5) ",
            "\"",
            "\"",
            "[",
            "]",
            "{",
            "}",
            ", ",
            ": ",
            "\"caption\": ",
            "[\"",
            "\", \"",
            "\"]",
            "\\u000d",
            "\\n",
            "\\u0000",
            "\n",
            "\r",
            "```json\n",
            "```",
            "dog",
            "Cat.",
            "狗",
            "\u{202e}",
            "7",
        ];
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        let mut json = 0;
        for _ in 0..30_000 {
            let length = rng.next_u32() % 16;
            let text: String = (0..length)
                .map(|_| PIECES[rng.next_u32() as usize % PIECES.len()])
                .collect();
            let list = tolerant(&text);
            json += usize::from(list.json);
            for item in &list.items {
                assert!(
                    !item.is_empty() && item.trim() == item,
                    "{text:?}: {item:?}"
                );
                assert!(!item.contains(|c| is_break(c) || is_removed(c) || c == '\n'));
            }
        }
        assert!(json > 1000, "{json}");
    }

    #[test]
    fn a_line_of_a_million_characters_is_one_item() {
        let long = "\u{0}a".repeat(1_000_000);
        let list = tolerant(&format!("4. {long}\n5. A cat."));
        assert_eq!((list.items.len(), list.removed), (2, 1_000_000));
        assert_eq!(list.items[0].len(), 1_000_000);
        assert_eq!(
            Parser::SelmaOfficial
                .parse(&"4. ".repeat(400_000), 4)
                .items
                .len(),
            0
        );
        assert!(tolerant(&"[".repeat(1_000_000)).items.is_empty());
        assert!(tolerant(&"[\"".repeat(500_000)).items.len() < 2);
    }
}
