//! Opening and reading of files.

use std::{fs::File, io::BufReader, path::Path};

use serde::de::DeserializeOwned;

use crate::EvalError;

/// Opens a file, naming it when that fails.
pub(crate) fn open(path: &Path) -> Result<File, EvalError> {
    File::open(path).map_err(|source| EvalError::Io {
        action: "open",
        path: path.to_path_buf(),
        source,
    })
}

/// Reads a result that was written as JSON.
pub(crate) fn read_result<T: DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    serde_json::from_reader(BufReader::new(open(path)?)).map_err(|source| EvalError::Json {
        path: path.to_path_buf(),
        source,
    })
}
