//! JSON, one value a line.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DurableError, atomic_write};

/// The rows as JSON, each with a line end. `path` is what an error calls the file.
///
/// # Errors
/// [`DurableError::Serialize`] for a row that has no JSON form.
pub fn to_jsonl<'a, T: Serialize + 'a>(
    path: &Path,
    rows: impl IntoIterator<Item = &'a T>,
) -> Result<Vec<u8>, DurableError> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row).map_err(|source| DurableError::Serialize {
            path: path.into(),
            source,
        })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Writes one JSON value a line, the whole file or nothing; see [`atomic_write`].
///
/// # Errors
/// As [`to_jsonl`] and [`atomic_write`]; a file that stood there is then unchanged.
pub fn write_jsonl<'a, T: Serialize + 'a>(
    path: &Path,
    rows: impl IntoIterator<Item = &'a T>,
) -> Result<(), DurableError> {
    atomic_write(path, &to_jsonl(path, rows)?)
}

/// The rows of a file's content, one by one. The last line end is optional. `path` is what an error calls the file.
///
/// An item is [`DurableError::Line`] for a line that is not JSON of this form, be it an empty one.
pub fn parse_jsonl<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
) -> impl Iterator<Item = Result<T, DurableError>> {
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    // Splitting nothing would give one empty line.
    let lines = (!bytes.is_empty()).then(|| lines.split(|&byte| byte == b'\n'));
    (1..)
        .zip(lines.into_iter().flatten())
        .map(move |(number, line)| parse_line(path, number, line))
}

/// Reads the rows of a file; see [`parse_jsonl`].
///
/// # Errors
/// [`DurableError::Io`] if it cannot be read, [`DurableError::Line`] for its first line that is not JSON of this form.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DurableError> {
    let bytes = fs::read(path).map_err(DurableError::io("read", path))?;
    parse_jsonl(path, &bytes).collect()
}

pub(crate) fn parse_line<T: DeserializeOwned>(
    path: &Path,
    number: usize,
    line: &[u8],
) -> Result<T, DurableError> {
    serde_json::from_slice(line).map_err(|error| DurableError::Line {
        path: path.into(),
        line: number,
        error,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let rows = ["plain", "two\nlines", "猫 \u{2028}"].map(str::to_owned);
        write_jsonl(&path, &rows).unwrap();
        assert_eq!(read_jsonl::<String>(&path).unwrap(), rows);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 3);
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read_jsonl::<String>(&path).unwrap(), rows);
        write_jsonl::<String>(&path, &[]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert!(read_jsonl::<String>(&path).unwrap().is_empty());
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, expected) in [
            ("1\n2,3\n4\n", "line 2: trailing characters (column 2)"),
            ("1\n\"2\"\n", "line 2: invalid type: string \"2\", expected"),
            ("1\n\n2\n", "line 2: EOF while parsing a value (column 0)"),
            ("\n", "line 1: EOF while parsing a value (column 0)"),
            ("1\n-2", "line 2: invalid value: integer `-2`, expected u32"),
        ] {
            let rows = parse_jsonl::<u32>(Path::new("d/rows"), text.as_bytes());
            let error = rows.collect::<Result<Vec<_>, _>>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("d/rows, {expected}")), "{error}");
        }
    }

    #[test]
    fn a_row_without_a_json_form_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        atomic_write(&path, b"old").unwrap();
        // JSON has only texts as keys.
        let error = write_jsonl(&path, &[BTreeMap::from([((1, 2), 3)])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot write a record to {}: key must be a string",
                path.display()
            )
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = read_jsonl::<u32>(Path::new("no/such.jsonl")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read no/such.jsonl: No such file"),
            "{error}"
        );
    }
}
