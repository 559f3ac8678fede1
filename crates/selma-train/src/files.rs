//! Files that appear whole or not at all.

use std::path::Path;

use selma_dataset::durable::atomic_write;

use crate::TrainError;

/// Writes a file through a temporary one in the same folder.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    Ok(atomic_write(path, bytes)?)
}
