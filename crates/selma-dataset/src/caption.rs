//! Captions in files of their own.

use std::path::Path;

use serde_json::{Map, Value};

use crate::words::{kind, list};
use crate::{DatasetError, Problem};

/// The keys of a JSON file under which a caption is looked for.
const KEYS: [&str; 2] = ["text", "caption"];

/// The caption that a text file holds: all of it, without white space at the ends. `path` is what an error calls the file.
pub(crate) fn of_text(path: &Path, bytes: &[u8]) -> Result<String, DatasetError> {
    let text = std::str::from_utf8(bytes).map_err(|error| DatasetError::Entry {
        path: path.into(),
        problem: Problem::BadCaption,
        expected: "UTF-8".to_owned(),
        found: format!("other bytes after {}", error.valid_up_to()),
    })?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(empty(path, "some text"));
    }
    Ok(text.to_owned())
}

/// The caption in a JSON object: under `key`, or else under `text` or `caption`.
pub(crate) fn of_json(
    path: &Path,
    bytes: &[u8],
    key: Option<&str>,
) -> Result<String, DatasetError> {
    let bad = |expected: String, found| DatasetError::Entry {
        path: path.into(),
        problem: Problem::BadCaption,
        expected,
        found,
    };
    let object: Map<String, Value> = serde_json::from_slice(bytes)
        .map_err(|error| bad("a JSON object".to_owned(), error.to_string()))?;
    let keys = key.as_ref().map_or(KEYS.as_slice(), std::slice::from_ref);
    let found = keys.iter().find_map(|&key| {
        let value = object.get(key).filter(|value| !value.is_null())?;
        Some((key, value))
    });
    match found {
        Some((key, Value::String(text))) if text.trim().is_empty() => {
            Err(empty(path, &format!("some text as `{key}`")))
        }
        Some((_, Value::String(text))) => Ok(text.trim().to_owned()),
        Some((key, other)) => Err(bad(format!("a string as `{key}`"), kind(other))),
        None => Err(DatasetError::Entry {
            path: path.into(),
            problem: Problem::NoCaption,
            expected: format!("a caption as {}", list(keys, "or")),
            found: match object.keys().collect::<Vec<_>>().as_slice() {
                [] => "nothing".to_owned(),
                keys => list(keys, "and"),
            },
        }),
    }
}

fn empty(path: &Path, expected: &str) -> DatasetError {
    DatasetError::Entry {
        path: path.into(),
        problem: Problem::EmptyCaption,
        expected: expected.to_owned(),
        found: "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_whole_and_trimmed() {
        let text = |bytes: &str| of_text(Path::new("a.txt"), bytes.as_bytes()).unwrap();
        assert_eq!(
            text("\u{feff} a red cube\r\non a table \n"),
            "a red cube\r\non a table"
        );
        for (bytes, expected) in [
            (
                b"".as_slice(),
                "a.txt: empty caption: expected some text, found none",
            ),
            (
                "\u{feff} \n\t".as_bytes(),
                "a.txt: empty caption: expected some text, found none",
            ),
            (
                b"ab\xff",
                "a.txt: bad caption: expected UTF-8, found other bytes after 2",
            ),
        ] {
            let error = of_text(Path::new("a.txt"), bytes).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn json_has_its_caption_under_a_key() {
        let json = |bytes: &str, key| of_json(Path::new("a.json"), bytes.as_bytes(), key);
        assert_eq!(json(r#"{"caption":" a ","url":"x"}"#, None).unwrap(), "a");
        assert_eq!(json(r#"{"caption":"a","text":"b"}"#, None).unwrap(), "b");
        assert_eq!(json(r#"{"text":null,"caption":"a"}"#, None).unwrap(), "a");
        assert_eq!(
            json(r#"{"text":"a","blip":"b"}"#, Some("blip")).unwrap(),
            "b"
        );
        for (bytes, key, expected) in [
            ("{", None, "bad caption: expected a JSON object, found EOF"),
            (
                "[]",
                None,
                "bad caption: expected a JSON object, found invalid type: sequence",
            ),
            (
                "{}",
                None,
                "no caption: expected a caption as `text` or `caption`, found nothing",
            ),
            (
                r#"{"url":"","a":1}"#,
                Some("blip"),
                "no caption: expected a caption as `blip`, found `url` and `a`",
            ),
            (
                r#"{"text":["a"]}"#,
                None,
                "bad caption: expected a string as `text`, found an array",
            ),
            (
                r#"{"text":" "}"#,
                None,
                "empty caption: expected some text as `text`, found none",
            ),
        ] {
            let error = json(bytes, key).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a.json: {expected}")), "{error}");
        }
    }
}
