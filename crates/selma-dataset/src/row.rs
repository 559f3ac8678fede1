//! Reading the rows of `metadata.jsonl` and `metadata.csv`, with errors that say where.

use std::collections::HashMap;
use std::path::Path;

use selma_durable::parse_jsonl;
use serde_json::{Map, Value};

use crate::words::{kind, list};
use crate::{DatasetError, Sample};

const PLAIN_PATH: &str = "a plain relative path inside the dataset, with `/` between its parts";

/// The column of the captions, where nothing else is asked for.
pub(crate) const TEXT: &str = "text";

/// A sample with its line, counted from 1.
pub(crate) type NumberedSample = (usize, Sample);

/// Parses metadata. Nothing is checked on the disk.
pub(crate) fn parse_rows(path: &Path, bytes: &[u8]) -> Result<Vec<Sample>, DatasetError> {
    jsonl_rows(path, bytes, TEXT)
        .map(|row| row.map(|(_, sample)| sample))
        .collect()
}

/// The rows of `metadata.jsonl`, whose captions are in the column `caption`.
pub(crate) fn jsonl_rows<'a>(
    path: &'a Path,
    bytes: &'a [u8],
    caption: &'a str,
) -> impl Iterator<Item = Result<NumberedSample, DatasetError>> + 'a {
    let mut lines = HashMap::new();
    (1..)
        .zip(parse_jsonl(path, bytes))
        .map(move |(line, columns)| {
            let row = Row {
                path,
                line,
                caption,
            };
            row.first_of_its_name(row.parse(columns?)?, &mut lines)
        })
}

/// The rows of `metadata.csv`, whose captions are in the column `caption`. An empty cell is a missing value, but for the
/// caption's.
pub(crate) fn csv_rows<'a>(
    path: &'a Path,
    bytes: &'a [u8],
    caption: &'a str,
) -> Result<impl Iterator<Item = Result<NumberedSample, DatasetError>> + 'a, DatasetError> {
    let error = move |source| DatasetError::Csv {
        path: path.into(),
        source,
    };
    // Rows of another length are for us to refuse, with their lines.
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let names = reader.headers().map_err(error)?.clone();
    for (number, name) in names.iter().enumerate() {
        if names.iter().take(number).any(|other| other == name) {
            return Err(DatasetError::Field {
                path: path.into(),
                line: 1,
                field: name.to_owned(),
                expected: "one column of this name",
                found: "two".to_owned(),
            });
        }
    }
    let mut lines = HashMap::new();
    Ok(reader.into_records().map(move |record| {
        let record = record.map_err(error)?;
        let line = record
            .position()
            .map_or(0, |position| line_of(position, bytes));
        if record.len() != names.len() {
            return Err(DatasetError::Field {
                path: path.into(),
                line,
                field: "file_name".to_owned(),
                expected: "a row with a value for each column",
                found: format!("{} for {}", record.len(), names.len()),
            });
        }
        let cell = |(name, value): (&str, &str)| {
            let missing = value.is_empty() && name != caption;
            let value = if missing { Value::Null } else { value.into() };
            (name.to_owned(), value)
        };
        let row = Row {
            path,
            line,
            caption,
        };
        let columns = names.iter().zip(&record).map(cell).collect();
        row.first_of_its_name(row.parse(columns)?, &mut lines)
    }))
}

/// The line in which a record begins. Its position is where the one before ended, before the rest of the line end and empty
/// lines.
fn line_of(position: &csv::Position, bytes: &[u8]) -> usize {
    let rest = bytes.iter().skip(position.byte() as usize);
    let ends = rest.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() as usize + ends.filter(|&&byte| byte == b'\n').count()
}

/// Where a row stands.
struct Row<'a> {
    path: &'a Path,
    line: usize,
    caption: &'a str,
}

impl Row<'_> {
    fn parse(&self, mut columns: Map<String, Value>) -> Result<Sample, DatasetError> {
        let file_name = self.string(&mut columns, "file_name")?;
        if !is_plain_path(&file_name) {
            return Err(self.field("file_name", PLAIN_PATH, format!("`{file_name}`")));
        }
        let text = self.string(&mut columns, self.caption)?;
        // A sample has one text. Where it is that of another column, this one must not be written in its place.
        columns.shift_remove(TEXT);
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
        field: &str,
    ) -> Result<String, DatasetError> {
        match columns.shift_remove(field) {
            Some(Value::String(value)) => Ok(value),
            Some(other) => Err(self.field(field, "a string", kind(&other))),
            None => Err(self.field(field, "a string", no_such_field(columns))),
        }
    }

    /// Refuses a sample whose name one in `lines` has.
    fn first_of_its_name(
        &self,
        sample: Sample,
        lines: &mut HashMap<String, usize>,
    ) -> Result<NumberedSample, DatasetError> {
        if let Some(&first) = lines.get(&sample.file_name) {
            return Err(DatasetError::DuplicateRow {
                path: self.path.into(),
                line: self.line,
                first,
                file_name: sample.file_name,
            });
        }
        lines.insert(sample.file_name.clone(), self.line);
        Ok((self.line, sample))
    }

    fn field(&self, field: &str, expected: &'static str, found: String) -> DatasetError {
        DatasetError::Field {
            path: self.path.into(),
            line: self.line,
            field: field.to_owned(),
            expected,
            found,
        }
    }
}

/// Says which fields there are in place of one that is missing.
fn no_such_field(columns: &Map<String, Value>) -> String {
    let names: Vec<&String> = columns.keys().collect();
    if names.is_empty() {
        return "no such field".to_owned();
    }
    format!("no such field among {}", list(&names, "and"))
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

    fn csv(text: &str, caption: &str) -> Result<Vec<NumberedSample>, DatasetError> {
        csv_rows(Path::new("d/metadata.csv"), text.as_bytes(), caption)?.collect()
    }

    #[test]
    fn csv_is_read_with_its_lines() {
        let text =
            "\u{feff}file_name,caption,text,score\r\na.png,\"one,\ntwo\",old,\r\n\r\nb.png,,,3\r\n";
        let rows = csv(text, "caption").unwrap();
        let texts: Vec<_> = rows
            .iter()
            .map(|(line, row)| (*line, row.file_name.as_str(), row.text.as_str()))
            .collect();
        assert_eq!(texts, [(2, "a.png", "one,\ntwo"), (5, "b.png", "")]);
        let extra: Vec<_> = rows.iter().map(|(_, row)| row.extra.clone()).collect();
        assert_eq!(
            serde_json::to_string(&extra).unwrap(),
            r#"[{"score":null},{"score":"3"}]"#
        );
    }

    #[test]
    fn bad_csv_is_named() {
        for (text, expected) in [
            (
                "file_name,text\na.png\n",
                "d/metadata.csv, line 2: field `file_name`: expected a row with a value for each column, found 1 for 2",
            ),
            (
                "text,text\n",
                "d/metadata.csv, line 1: field `text`: expected one column of this name, found two",
            ),
            (
                "file_name,caption\na.png,x\n",
                "d/metadata.csv, line 2: field `text`: expected a string, found no such field among `caption`",
            ),
            (
                "file_name,text\n,x\n",
                "d/metadata.csv, line 2: field `file_name`: expected a string, found null",
            ),
            (
                "file_name,text\na.png,x\na.png,y\n",
                "d/metadata.csv, line 3: `a.png` is already named in line 2",
            ),
        ] {
            let error = csv(text, TEXT).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
