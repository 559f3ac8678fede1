//! Folders that appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::atomic::{TEMPORARY_PREFIX, TEMPORARY_SUFFIX};
use crate::folder::{folder_of, sync_folder};

/// A folder that is filled file by file and appears whole, by [`commit`](Self::commit). Dropped before that, it leaves nothing; a kill leaves a folder
/// whose name begins with `.selma-`.
#[derive(Debug)]
pub struct AtomicFolder {
    path: PathBuf,
    folder: TempDir,
}

impl AtomicFolder {
    /// Begins a folder, under a temporary name beside the one it will have.
    ///
    /// # Errors
    /// If something has the name already: a folder cannot be replaced at one instant. If the folder around it does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
        #[cfg(unix)]
        {
            // A folder that stays temporary is private to its owner; this one gets the permissions of any new folder.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        Ok(Self {
            path: path.into(),
            folder: builder.tempdir_in(folder_of(path))?,
        })
    }

    /// Where its files are to be put.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name, once all that is in it is on the disk.
    ///
    /// # Errors
    /// If the disk is full or fails, or something has taken the name meanwhile, which stays as it was.
    pub fn commit(self) -> io::Result<()> {
        sync_all(self.path())?;
        fs::rename(self.path(), &self.path)?;
        // Only now is there nothing left to be removed.
        let Self { path, folder } = self;
        drop(folder.keep());
        sync_folder(folder_of(&path))
    }
}

fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            // Windows syncs only what is open for writing.
            let file = if cfg!(windows) {
                File::options().write(true).open(entry.path())?
            } else {
                File::open(entry.path())?
            };
            file.sync_all()?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let folder = AtomicFolder::create(&path).unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        fs::write(folder.path().join("unet/weights"), b"1").unwrap();
        assert!(!path.exists());
        drop(folder);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let folder = AtomicFolder::create(&path).unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        fs::write(folder.path().join("unet/weights"), b"1").unwrap();
        folder.commit().unwrap();
        assert_eq!(fs::read(path.join("unet/weights")).unwrap(), b"1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let folder = AtomicFolder::create(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("mine"), b"").unwrap();
        let error = AtomicFolder::create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(folder.commit().is_err());
        assert!(path.join("mine").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(AtomicFolder::create(&dir.path().join("none/model")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_any_new_folder() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, plain) = (dir.path().join("folder"), dir.path().join("plain"));
        AtomicFolder::create(&path).unwrap().commit().unwrap();
        fs::create_dir(&plain).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(path), mode(plain));
    }
}
