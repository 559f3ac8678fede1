//! PyTorch checkpoints (`.bin`, `.ckpt`, `.pt`), read without executing anything.
//!
//! Such a file is a pickle, a program for a stack machine that Python runs, beside the raw numbers of the tensors. The
//! machine here knows data, dictionaries and tensors; it calls nothing. What else a file holds (the callbacks and
//! options that trainers save) becomes a name that can be skipped, and is refused where a tensor is needed.

mod archive;
mod legacy;
mod pickle;
mod state_dict;
mod zip;

use std::sync::Arc;

use super::mapped::MappedFile;
use crate::DiffusionError;
pub(super) use state_dict::StateDict;

/// Whether these are the first bytes of a PyTorch checkpoint, in the format of today or in that before 1.6.
pub(super) fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(zip::MAGIC) || bytes.starts_with(legacy::MAGIC)
}

/// Reads the state dictionary of a checkpoint.
///
/// # Errors
///
/// If the file is damaged, big-endian, no checkpoint of PyTorch, or a tensor cannot be read.
pub(super) fn read(file: &Arc<MappedFile>) -> Result<StateDict, DiffusionError> {
    let read = if file.bytes().starts_with(legacy::MAGIC) {
        legacy::read(file)
    } else {
        archive::read(file)
    };
    Ok(read?)
}
