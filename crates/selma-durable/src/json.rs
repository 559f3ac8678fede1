//! JSON to be read by people, and JSON in pages.

use std::path::Path;

use serde::Serialize;

use crate::{DurableError, atomic_write};

/// A value as indented JSON with a line end. `path` is what an error calls the file.
///
/// # Errors
/// [`DurableError::Serialize`] for a value that has no JSON form.
pub fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, DurableError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| DurableError::Serialize {
        path: path.into(),
        source,
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a value as indented JSON, whole or not at all; see [`atomic_write`].
///
/// # Errors
/// As [`to_json`] and [`atomic_write`]; a file that stood there is then unchanged.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), DurableError> {
    atomic_write(path, &to_json(path, value)?)
}

/// A value of strings, numbers and lists, which JSON can always hold, for a `<script type="application/json">` of a page: nothing in it can end the
/// element or open a comment.
#[must_use]
pub fn script_json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_default()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_indented_and_end_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &[1, 2]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        let keyless = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = write_json(&path, &keyless).unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
    }

    #[test]
    fn json_reads_back_and_cannot_leave_its_element() {
        let text = "</script><!-- \"&\u{2028} 'x\\";
        let escaped = script_json(&text);
        assert!(!escaped.contains(['<', '>', '&']), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
