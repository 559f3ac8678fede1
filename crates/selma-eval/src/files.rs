//! Opening of files.

use std::{fs::File, path::Path};

use crate::EvalError;

/// Opens a file, naming it when that fails.
pub(crate) fn open(path: &Path) -> Result<File, EvalError> {
    File::open(path).map_err(|source| EvalError::Io {
        action: "open",
        path: path.to_path_buf(),
        source,
    })
}
