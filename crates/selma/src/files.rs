//! Reading and removing of files.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::SelmaError;

/// Reads a TOML file.
///
/// # Errors
///
/// If the file cannot be read, or has an unknown, missing or mistyped key; the error names file, line and key.
pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, SelmaError> {
    let text = std::fs::read_to_string(path).map_err(|source| SelmaError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| SelmaError::Recipe {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Reads a JSON file that a run has written.
///
/// # Errors
///
/// If the file cannot be read or is not as it was written.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, SelmaError> {
    let text = std::fs::read_to_string(path).map_err(|source| SelmaError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| SelmaError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Removes a file if it is there.
///
/// # Errors
///
/// If it cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), SelmaError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(SelmaError::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
