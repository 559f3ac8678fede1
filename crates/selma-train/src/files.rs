//! Files that appear whole or not at all.

use std::path::Path;

use crate::TrainError;

/// Writes a file through a temporary one in the same folder.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    std::fs::write(path, bytes).map_err(|source| TrainError::Io{action:"write",path:path.to_owned(),source})
}
