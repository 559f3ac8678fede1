//! Reading `config.json` files.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

/// Levels of a network: each halves the sides of a picture.
pub(crate) const LEVELS: RangeInclusive<usize> = 1..=16;
/// Layers of one kind in one place, ten times what any published model has. A damaged file must not take all memory.
pub(crate) const LAYERS: RangeInclusive<usize> = 1..=1000;
/// Channels, widths, and entries of tables.
pub(crate) const WIDTHS: RangeInclusive<usize> = 1..=1 << 20;

/// Why a `config.json` cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not JSON, or a field has the wrong type.
    #[error("{path} is not a valid configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value that cannot be used.
    #[error("configuration field {field}: expected {expected}, found {found}")]
    Invalid {
        /// The field.
        field: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A field of a file has a value that cannot be used.
    #[error("{path}: field {field}: expected {expected}, found {found}")]
    InvalidIn {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl ConfigError {
    /// A field whose value cannot be used.
    pub fn invalid(field: impl Display, expected: impl Display, found: impl Display) -> Self {
        Self::Invalid {
            field: field.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Says in which part of a configuration the field stands.
    #[must_use]
    pub(crate) fn within(self, part: &str) -> Self {
        match self {
            Self::Invalid {
                field,
                expected,
                found,
            } => Self::invalid(format!("{part}.{field}"), expected, found),
            other => other,
        }
    }

    /// Says in which file the field stands.
    #[must_use]
    pub fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Invalid {
                field,
                expected,
                found,
            } => Self::InvalidIn {
                path: file.to_owned(),
                field,
                expected,
                found,
            },
            other => other,
        }
    }
}

/// Reads a JSON file into a configuration.
///
/// # Errors
///
/// If the file cannot be read, is not JSON, or a field has the wrong type; the error names file, line and field.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Refuses options that would change the model in a way that is not implemented.
///
/// # Errors
///
/// The first field whose value is neither absent nor its default. Numbers are compared by value, and `null` and `false`
/// are the same, as they are to Python's `if`.
pub fn require_default(
    fields: &Map<String, Value>,
    defaults: &[(&str, Value)],
) -> Result<(), ConfigError> {
    let same = |found: &Value, default: &Value| match (found.as_f64(), default.as_f64()) {
        (Some(found), Some(default)) => found == default,
        _ => {
            let falsy = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
            found == default || falsy(found) && falsy(default)
        }
    };
    for (name, default) in defaults {
        if let Some(found) = fields.get(*name)
            && !same(found, default)
        {
            return Err(ConfigError::invalid(name, default, found));
        }
    }
    Ok(())
}

/// Refuses sizes that no network can have, or none that fits any memory.
///
/// # Errors
///
/// The first field whose value is out of its range.
pub(crate) fn require_sizes(
    fields: &[(&str, usize, RangeInclusive<usize>)],
) -> Result<(), ConfigError> {
    for (field, size, range) in fields {
        if !range.contains(size) {
            let expected = format!("{} to {}", range.start(), range.end());
            return Err(ConfigError::invalid(field, expected, size));
        }
    }
    Ok(())
}

/// Refuses heads that do not share a width evenly.
///
/// # Errors
///
/// `num_attention_heads`, if it is none or does not divide `hidden_size`.
pub(crate) fn require_heads(heads: usize, hidden_size: usize) -> Result<(), ConfigError> {
    if heads == 0 || !hidden_size.is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size {hidden_size}");
        return Err(ConfigError::invalid("num_attention_heads", expected, heads));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_implemented_are_refused_by_name() {
        let fields: Map<String, Value> =
            serde_json::from_str(r#"{"class_embed_type": "timestep", "dropout": 0}"#).unwrap();
        require_default(&fields, &[("dropout", Value::from(0.0))]).unwrap();
        let error = require_default(&fields, &[("class_embed_type", Value::Null)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration field class_embed_type: expected null, found \"timestep\""
        );
    }
}
