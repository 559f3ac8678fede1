//! Prompts in an answer that is JSON: [`parse_json_list`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::ParsedList;
use crate::list::{number_marker, undress};
use crate::parser::clean;

/// Names of fields that hold prompts, without a number at their end and in the singular.
const TEXT_KEYS: [&str; 9] = [
    "caption",
    "description",
    "image",
    "image_caption",
    "image_description",
    "image_prompt",
    "item",
    "prompt",
    "text",
];

/// Reads an LLM's answer as JSON, bare or in a code fence, with or without chatter around it; `None` if it has no JSON with
/// texts, or has it only after a numbered line.
///
/// Understood are arrays of strings, arrays of objects with a field such as `prompt`, `caption`, `description` or `text`
/// (`{"id": 4, "caption": ".."}`), objects whose fields are numbers (`{"4": ".."}`) or hold an array (`{"captions": [..]}`), and
/// several such values one after the other, as in JSON lines. An answer that was cut gives what is whole in it. A number in
/// front of a text is taken away if it is the one that is due, counted from `first` or from 1.
pub fn parse_json_list(text: &str, first: usize) -> Option<ParsedList> {
    let start = start(text)?;
    let (before, json) = text.split_at_checked(start)?;
    let mut list = ParsedList {
        json: true,
        ..ParsedList::default()
    };
    let mut values = serde_json::Deserializer::from_str(json);
    // An error of `end` says that another value or chatter follows.
    while values.end().is_err() {
        let reader = Reader {
            list: &mut list,
            first,
            level: Level::Top,
        };
        if let Err(error) = reader.deserialize(&mut values) {
            list.unfinished = error.is_eof();
            break;
        }
    }
    if list.items.is_empty() {
        return None;
    }
    let after = json.rsplit([']', '}']).next().filter(|_| !list.unfinished);
    list.skipped += chatter(before) + chatter(after.unwrap_or_default());
    Some(list)
}

/// Where the first array or object of something begins.
fn start(text: &str) -> Option<usize> {
    let opens = |(at, _): &(usize, &str)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        rest.trim_start().starts_with(['"', '[', '{'])
    };
    let (start, _) = text.match_indices(['[', '{']).find(opens)?;
    let before = text.get(..start)?;
    let numbered = before
        .lines()
        .any(|line| number_marker(line.trim()).is_some());
    (!numbered).then_some(start)
}

/// Lines with text that are no code fence.
fn chatter(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("```"))
        .count()
}

/// Where a value stands, and so what is read of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Level {
    /// The answer itself.
    Top,
    /// A field of the outermost object whose name says nothing: its array may hold the prompts.
    Field,
    /// A place for a prompt.
    Prompt,
}

/// Adds the texts of a value to the list while it is being read, so that what is whole stays when the rest is broken.
struct Reader<'a> {
    list: &'a mut ParsedList,
    first: usize,
    level: Level,
}

impl Reader<'_> {
    fn at(&mut self, level: Level) -> Reader<'_> {
        Reader {
            list: self.list,
            first: self.first,
            level,
        }
    }

    fn no_text<E>(self) -> Result<(), E> {
        self.list.skipped += usize::from(self.level != Level::Field);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.level != Level::Prompt {
            return self.no_text();
        }
        // Escapes hide characters from whoever looks at the answer only.
        let (text, removed) = clean(text);
        self.list.removed += removed;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = lines.join(" ");
        let position = self.list.items.len();
        let text = match number_marker(line.trim()) {
            Some((Some(number), text))
                if [position + 1, position + self.first].contains(&number) =>
            {
                undress(text)
            }
            _ => undress(&line),
        };
        if text.is_empty() {
            self.list.empty += 1;
        } else {
            self.list.items.push(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        while values.next_element_seed(self.at(Level::Prompt))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if names_a_text(&key) {
                fields.next_value_seed(self.at(Level::Prompt))?;
            } else if self.level == Level::Top {
                fields.next_value_seed(self.at(Level::Field))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.no_text()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.no_text()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.no_text()
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.no_text()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.no_text()
    }
}

/// Whether a field of this name holds a prompt or several: `prompt`, `Captions`, `description_4`, `4`.
fn names_a_text(key: &str) -> bool {
    let key = key.trim().to_lowercase();
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '_' | '-' | ' '));
    let name = name
        .strip_suffix('s')
        .unwrap_or(name)
        .replace([' ', '-'], "_");
    (name.is_empty() && !key.is_empty()) || TEXT_KEYS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<String> {
        parse_json_list(text, 4).map_or_else(Vec::new, |list| list.items)
    }

    #[test]
    fn every_form_of_json() {
        for text in [
            r#"["A dog", "A cat"]"#,
            "[\n  \"A dog\",\n  \"A cat\"\n]\n",
            "```json\n[\"A dog\", \"A cat\"]\n```",
            "```\n[\"A dog\", \"A cat\"]\n```\n",
            r#"["4. A dog", "5. A cat"]"#,
            r#"["1) A dog", "2) \"A cat\""]"#,
            r#"{"prompts": ["A dog", "A cat"]}"#,
            r#"{"count": 2, "results": ["A dog", "A cat"], "note": "enjoy"}"#,
            r#"{"4": "A dog", "5": "A cat"}"#,
            r#"{"caption_4": "A dog", "Caption 5": "A cat"}"#,
            r#"[{"id": 4, "Caption": "A dog", "style": "short", "tags": ["x"]}, {"prompt": "A cat"}]"#,
            r#"{"image_descriptions": [{"text": "A dog"}, {"text": "A cat"}]}"#,
            r#"{"data": {"captions": ["A dog", "A cat"], "x": ["y"]}}"#,
            "{\"prompt\": \"A dog\"}\n{\"prompt\": \"A cat\"}\n",
            "[\"A dog\"]\n[\"A cat\"]",
            r#"[["A dog"], ["A cat"]]"#,
            r#"["  A dog\n", "A\ncat"]"#,
        ] {
            let list = parse_json_list(text, 4).unwrap();
            assert_eq!(list.items, ["A dog", "A cat"], "{text}");
            let counts = (list.skipped, list.misnumbered, list.empty, list.unfinished);
            assert_eq!(counts, (0, 0, 0, false), "{text}");
        }
    }

    #[test]
    fn chatter_and_what_is_no_text_are_counted() {
        let text = "Sure, here:\n\n```json\n[\"A dog\", 7, null, \"\", \"A cat\"]\n```\nEnjoy!";
        let list = parse_json_list(text, 4).unwrap();
        assert_eq!(list.items, ["A dog", "A cat"]);
        assert_eq!((list.skipped, list.empty), (4, 1));
        assert_eq!(items("Here: [\"A dog\"]"), ["A dog"]);
        let list = parse_json_list(r#"["A\r\nd\u0000og\u2028runs"]"#, 4).unwrap();
        assert_eq!(
            (list.items, list.removed),
            (vec!["A dog runs".to_owned()], 1)
        );
    }

    #[test]
    fn what_was_cut_gives_what_is_whole() {
        let whole = r#"{"prompts": ["A dog", {"text": "A cat"}, "A cow"]}"#;
        for end in 0..whole.len() {
            let list = parse_json_list(&whole[..end], 4).unwrap_or_default();
            let expected = ["A dog\"", "A cat\"", "A cow\""]
                .iter()
                .filter(|item| whole[..end].contains(*item))
                .count();
            assert_eq!(list.items.len(), expected, "{}", &whole[..end]);
            assert_eq!(list.unfinished, expected > 0, "{}", &whole[..end]);
        }
        // Broken in the middle rather than cut.
        for text in [r#"["A dog", "A cat",]"#, r#"["A dog", "A cat" "A cow"]"#] {
            let list = parse_json_list(text, 4).unwrap();
            assert_eq!(list.items, ["A dog", "A cat"]);
            assert!(!list.unfinished);
        }
    }

    #[test]
    fn other_answers_are_none() {
        for text in [
            "",
            "4. A dog",
            "4. A dog\n[\"A cat\"]",
            "[4] A dog",
            "[]",
            "{}",
            "[1, 2]",
            "{\"error\": \"no\"}",
            "[a dog]",
            "[\"\"]",
        ] {
            assert_eq!(parse_json_list(text, 4), None, "{text}");
        }
    }
}
