//! Hashes of files that may be larger than the memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::DurableError;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// SHA-256 of a file's bytes.
///
/// # Errors
/// [`DurableError::Io`] if the file cannot be read.
pub fn sha256(path: &Path) -> Result<[u8; 32], DurableError> {
    let hash = || -> io::Result<[u8; 32]> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(hash.finalize().into());
            }
            hash.update(block.get(..read).unwrap_or_default());
        }
    };
    hash().map_err(DurableError::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for len in [0, 3, BLOCK, BLOCK + 1] {
            let bytes = vec![7; len];
            std::fs::write(&path, &bytes).unwrap();
            let expected: [u8; 32] = Sha256::digest(&bytes).into();
            assert_eq!(sha256(&path).unwrap(), expected, "{len}");
        }
        let error = sha256(&dir.path().join("none")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains("none: "),
            "{error}"
        );
    }
}
