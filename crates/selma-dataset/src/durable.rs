//! Files that survive a crash: written whole or not at all, and journals that are appended to record by record.

mod journal;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub use journal::Journal;

use crate::DatasetError;

const TEMPORARY_PREFIX: &str = ".selma-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Writes a file so that at any instant, even after a crash, its old or its new content is there, whole.
///
/// The bytes go to a temporary file in the same folder, which is synced to the disk and renamed.
///
/// # Errors
/// [`DatasetError::Io`] if the folder does not exist or cannot be written, or the disk is full. Then `path` is as it was,
/// and the temporary file is gone.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    let folder = folder_of(path);
    let write = || -> io::Result<()> {
        let mut file = temporary().tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder(folder)
    };
    write().map_err(io_error("write", path))
}

/// Removes what a killed [`atomic_write`] left behind in `folder` and the folders in it. Nobody else may be writing there.
///
/// # Errors
/// [`DatasetError::Io`] if a folder cannot be read or a file cannot be removed.
pub fn remove_temporaries(folder: &Path) -> Result<(), DatasetError> {
    let read_error = || io_error("read", folder);
    for entry in fs::read_dir(folder).map_err(read_error())? {
        let entry = entry.map_err(read_error())?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().map_err(read_error())?.is_dir() {
            remove_temporaries(&path)?;
        } else if name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Creates a folder and those it lies in, unless they exist.
///
/// # Errors
/// [`DatasetError::Io`], also if something that is not a folder has its name.
pub fn create_folder(path: &Path) -> Result<(), DatasetError> {
    fs::create_dir_all(path).map_err(io_error("create the folder", path))
}

/// The settings of a temporary file. Unlike one that stays temporary, it gets the permissions of any new file.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename, a new file or a removal in a folder durable. Only Unix can open a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DatasetError {
    move |source| DatasetError::Io {
        action,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        atomic_write(&path, b"old and long").unwrap();
        atomic_write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, plain) = (dir.path().join("file"), dir.path().join("plain"));
        atomic_write(&path, b"").unwrap();
        fs::write(&plain, b"").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(path), mode(plain));
    }

    #[test]
    fn errors_name_the_path_and_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let inside = file.join("x");
        let error = atomic_write(&inside, b"x").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write {}: ", inside.display())),
            "{error}"
        );
        assert!(error.contains("Not a directory"), "{error}");
        let error = create_folder(&inside).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot create the folder {}: ", inside.display())),
            "{error}"
        );
        // A folder of that name: the rename fails, and the temporary file must go.
        let folder = dir.path().join("folder");
        create_folder(&folder.join("x")).unwrap();
        assert!(atomic_write(&folder, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn temporaries_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        create_folder(&deep).unwrap();
        let (_, left) = temporary().tempfile_in(&deep).unwrap().keep().unwrap();
        let others = [".tmp", ".selma-x", "x.tmp", "a.selma-x.tmp"];
        for name in others {
            fs::write(deep.join(name), b"").unwrap();
        }
        remove_temporaries(dir.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(fs::read_dir(&deep).unwrap().count(), others.len());
    }
}
