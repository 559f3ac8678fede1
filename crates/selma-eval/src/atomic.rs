//! Files that are either there in full or not at all.

use std::{fs, io::Write, path::Path};

use crate::EvalError;

/// Writes through a temporary file in the same folder, synced and renamed, so that a crash leaves the old file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    let failed = |source| EvalError::Io {
        action: "write",
        path: path.to_path_buf(),
        source,
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".selma-").suffix(".tmp");
    // The default mode of a temporary file is 0600; results are meant to be read by others as the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    // The rename itself is durable only once the folder is synced; only Unix can open a folder for that.
    #[cfg(unix)]
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    Ok(())
}

/// Opens a file, naming it when that fails.
pub(crate) fn open(path: &Path) -> Result<fs::File, EvalError> {
    fs::File::open(path).map_err(|source| EvalError::Io {
        action: "open",
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"a long first version").unwrap();
        write(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_the_file_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/a.json");
        let error = write(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("none/a.json"), "{error}");
    }
}
