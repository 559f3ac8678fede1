//! Hashes of files that may be larger than the memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::DiffusionError;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// SHA-256 of a file's bytes.
pub(crate) fn sha256(path: &Path) -> Result<[u8; 32], DiffusionError> {
    let unreadable = |source| DiffusionError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block).map_err(unreadable)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(block.get(..read).unwrap_or_default());
    }
}
