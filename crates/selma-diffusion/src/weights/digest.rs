//! Hashes of what networks are made of.

use std::path::{Path, PathBuf};

use selma_durable::sha256;
use sha2::{Digest, Sha256};

use crate::DiffusionError;

/// SHA-256 over those of files, in their order; their names do not count.
///
/// # Errors
///
/// If one cannot be read.
pub(crate) fn sha256_of(files: &[PathBuf]) -> Result<String, DiffusionError> {
    sha256_with(files, Path::new(""), &[])
}

/// The same over weight files and those of `names` that lie in a folder, such as configurations and tokenizers, which stand with
/// their names, as any of them may be missing.
///
/// # Errors
///
/// If one cannot be read.
pub(crate) fn sha256_with(
    files: &[PathBuf],
    folder: &Path,
    names: &[&str],
) -> Result<String, DiffusionError> {
    let mut hash = Sha256::new();
    for path in files {
        hash.update(sha256(path)?);
    }
    for name in names {
        let path = folder.join(name);
        if path.is_file() {
            hash.update(name);
            hash.update(sha256(&path)?);
        }
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_count_and_names_of_weights_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let hash = |weights: &str, beside: &[(&str, &str)]| {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            let path = folder.path().join(weights);
            std::fs::write(&path, "weights").unwrap();
            for (name, text) in beside {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            sha256_with(&[path], folder.path(), &["a.json", "b.json"]).unwrap()
        };
        let first = hash("x.pt", &[("a.json", "1")]);
        assert_eq!(hash("y.pt", &[("a.json", "1"), ("notes.txt", "")]), first);
        for other in [
            hash("x.pt", &[]),
            hash("x.pt", &[("b.json", "1")]),
            hash("x.pt", &[("a.json", "2")]),
        ] {
            assert_ne!(other, first);
        }
    }
}
