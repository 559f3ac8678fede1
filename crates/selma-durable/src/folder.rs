//! Folders, and what a kill leaves in them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::DurableError;
use crate::atomic::{TEMPORARY_PREFIX, TEMPORARY_SUFFIX};

/// Creates a folder and those it lies in, unless they exist.
///
/// # Errors
/// [`DurableError::Io`], also if something that is not a folder has its name.
pub fn create_folder(path: &Path) -> Result<(), DurableError> {
    fs::create_dir_all(path).map_err(DurableError::io("create the folder", path))
}

/// Removes what killed writers of this crate left behind in `folder` and the folders in it. Nobody else may be writing
/// there.
///
/// # Errors
/// [`DurableError::Io`] if a folder cannot be read or a file cannot be removed.
pub fn remove_temporaries(folder: &Path) -> Result<(), DurableError> {
    let read_error = || DurableError::io("read", folder);
    for entry in fs::read_dir(folder).map_err(read_error())? {
        let entry = entry.map_err(read_error())?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let temporary = name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX);
        match (entry.file_type().map_err(read_error())?.is_dir(), temporary) {
            (true, true) => fs::remove_dir_all(&path),
            (false, true) => fs::remove_file(&path),
            (true, false) => {
                remove_temporaries(&path)?;
                Ok(())
            }
            (false, false) => Ok(()),
        }
        .map_err(DurableError::io("remove", &path))?;
    }
    Ok(())
}

/// The folder a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename, a new file or a removal in a folder durable. Only Unix can open a folder.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AtomicFile;

    #[test]
    fn temporaries_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        create_folder(&deep).unwrap();
        // Forgotten as a kill does it: nothing is dropped.
        std::mem::forget(AtomicFile::create(&deep.join("file")).unwrap());
        let others = [".tmp", ".selma-x", "x.tmp", "a.selma-x.tmp"];
        for name in others {
            fs::write(deep.join(name), b"").unwrap();
        }
        assert_eq!(fs::read_dir(&deep).unwrap().count(), others.len() + 1);
        remove_temporaries(dir.path()).unwrap();
        assert_eq!(fs::read_dir(&deep).unwrap().count(), others.len());
        for name in others {
            assert!(deep.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_file_is_no_place_for_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let inside = file.join("x");
        let error = create_folder(&inside).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot create the folder {}: ", inside.display())),
            "{error}"
        );
    }
}
