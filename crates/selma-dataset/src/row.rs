//! Reading the rows of `metadata.jsonl`, with errors that say where.

use std::collections::HashMap;
use std::path::Path;

use selma_durable::parse_jsonl;
use serde_json::{Map, Value};

use crate::{DatasetError, Sample};

const PLAIN_PATH: &str = "a plain relative path inside the dataset, with `/` between its parts";

/// Parses metadata. Nothing is checked on the disk.
pub(crate) fn parse_rows(path: &Path, bytes: &[u8]) -> Result<Vec<Sample>, DatasetError> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines = HashMap::new();
    for (line, row) in (1..).zip(parse_jsonl(path, bytes)) {
        let sample = Row { path, line }.parse(row?)?;
        if let Some(first) = lines.insert(sample.file_name.clone(), line) {
            let file_name = sample.file_name;
            return Err(DatasetError::DuplicateRow {
                path: path.into(),
                line,
                first,
                file_name,
            });
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Where a row stands.
struct Row<'a> {
    path: &'a Path,
    line: usize,
}

impl Row<'_> {
    fn parse(&self, mut columns: Map<String, Value>) -> Result<Sample, DatasetError> {
        let file_name = self.string(&mut columns, "file_name")?;
        if !is_plain_path(&file_name) {
            return Err(self.field("file_name", PLAIN_PATH, format!("`{file_name}`")));
        }
        let text = self.string(&mut columns, "text")?;
        let image_sha256 = match columns.shift_remove("image_sha256") {
            None | Some(Value::Null) => None,
            Some(Value::String(hash)) => Some(hash),
            Some(other) => return Err(self.field("image_sha256", "a string", kind(&other))),
        };
        let provenance = match columns.shift_remove("provenance") {
            None | Some(Value::Null) => None,
            Some(value @ Value::Object(_)) => {
                Some(serde_json::from_value(value).map_err(|error| {
                    self.field(
                        "provenance",
                        "the fields of a provenance",
                        error.to_string(),
                    )
                })?)
            }
            Some(other) => return Err(self.field("provenance", "an object", kind(&other))),
        };
        Ok(Sample {
            file_name,
            text,
            image_sha256,
            provenance,
            extra: columns,
        })
    }

    fn string(
        &self,
        columns: &mut Map<String, Value>,
        field: &'static str,
    ) -> Result<String, DatasetError> {
        match columns.shift_remove(field) {
            Some(Value::String(value)) => Ok(value),
            Some(other) => Err(self.field(field, "a string", kind(&other))),
            None => Err(self.field(field, "a string", "no such field".to_owned())),
        }
    }

    fn field(&self, field: &'static str, expected: &'static str, found: String) -> DatasetError {
        DatasetError::Field {
            path: self.path.into(),
            line: self.line,
            field,
            expected,
            found,
        }
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Whether a name stays inside its folder on every system: no absolute path, drive, URL, `.` or `..`.
///
/// A colon would name a drive or a stream on Windows, and a URL elsewhere; Hugging Face `datasets` refuses `://`.
pub(crate) fn is_plain_path(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(plain) && !name.contains(['\\', ':']) && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_only() {
        for name in ["a.png", "images/a b.png", "…/猫.png", "a..png", "..a/.b"] {
            assert!(is_plain_path(name), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../a.png",
            "a/../b.png",
            "..",
            ".",
            "./a.png",
            "a//b.png",
            "a/",
            "C:a.png",
            "C:\\a.png",
            "a\\b.png",
            "https://example.org/a.png",
            "file:///a.png",
            "zip://a.png::b.zip",
            "a\n.png",
            "a\0.png",
        ] {
            assert!(!is_plain_path(name), "{name}");
        }
    }

    fn error(rows: &str) -> String {
        parse_rows(Path::new("d/metadata.jsonl"), rows.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn errors_name_line_field_expected_and_found() {
        let good = "{\"file_name\":\"0.png\",\"text\":\"\"}\n";
        for (row, expected) in [
            (
                r#"{"text":"a"}"#,
                "field `file_name`: expected a string, found no such field",
            ),
            (
                r#"{"file_name":"a.png"}"#,
                "field `text`: expected a string, found no such field",
            ),
            (
                r#"{"file_name":"a.png","text":["a"]}"#,
                "field `text`: expected a string, found an array",
            ),
            (
                r#"{"file_name":3,"text":"a"}"#,
                "field `file_name`: expected a string, found 3",
            ),
            (
                r#"{"file_name":"a.png","text":"a","provenance":{"skil":""}}"#,
                "field `provenance`: expected the fields of a provenance, found unknown field `skil`",
            ),
            (
                r#"{"file_name":"a.png","text":"a","provenance":"x"}"#,
                "field `provenance`: expected an object, found a string",
            ),
            (
                r#"{"file_name":"a.png","text":"a","image_sha256":{}}"#,
                "field `image_sha256`: expected a string, found an object",
            ),
            (
                r#"{"file_name":"../a.png","text":"a"}"#,
                "field `file_name`: expected a plain relative path inside the dataset, with `/` between its parts, found `../a.png`",
            ),
            (
                r#"{"file_name":"0.png","text":"a"}"#,
                "`0.png` is already named in line 1",
            ),
            ("a.png,a", "expected value (column 1)"),
            ("[]", "invalid type: sequence, expected a map"),
            ("", "EOF while parsing a value"),
            (r#"{"file_name":"a.png","#, "EOF while parsing"),
        ] {
            let error = error(&format!("{good}{row}\n{good}"));
            assert!(
                error.starts_with(&format!("d/metadata.jsonl, line 2: {expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_last_newline_is_optional() {
        let row = r#"{"file_name":"0.png","text":"a","mine":1}"#;
        let parse = |text: String| parse_rows(Path::new("m"), text.as_bytes()).unwrap();
        assert_eq!(parse(row.to_owned()), parse(format!("{row}\r\n")));
        assert_eq!(parse(String::new()), []);
    }
}
