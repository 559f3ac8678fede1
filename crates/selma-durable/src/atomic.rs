//! Files that are written whole or not at all.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use tempfile::NamedTempFile;

use crate::DurableError;
use crate::folder::{folder_of, sync_folder};

pub(crate) const TEMPORARY_PREFIX: &str = ".selma-";
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// After so many bytes they are begun to be brought to the disk, while others are still made: a large file's end has less to wait for.
const SYNC_EVERY: u64 = 32 << 20;

/// Writes a file so that at any instant, even after a crash, its old or its new content is there, whole.
///
/// The bytes go to a temporary file in the same folder, which is synced to the disk and renamed.
///
/// # Errors
/// [`DurableError::Io`] if the folder does not exist or cannot be written, or the disk is full. Then `path` is as it was,
/// and the temporary file is gone.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    filled(path, bytes)
        .and_then(AtomicFile::commit)
        .map_err(DurableError::io("write", path))
}

/// As [`atomic_write`] if the process is killed; after a loss of power the file may be empty or missing until
/// [`sync_files`] has been called for it. Spares two waits for the disk.
///
/// # Errors
/// As [`atomic_write`].
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    filled(path, bytes)
        .and_then(AtomicFile::rename)
        .map_err(DurableError::io("write", path))
}

/// Makes files written by [`write_unsynced`] durable.
///
/// # Errors
/// [`DurableError::Io`] if a file is not there any more, or the disk fails.
pub fn sync_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), DurableError> {
    let mut folders = BTreeSet::new();
    for path in paths {
        // Windows syncs only what is open for writing.
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|file| file.sync_all())
            .map_err(DurableError::io("sync", path))?;
        folders.insert(folder_of(path));
    }
    for folder in folders {
        sync_folder(folder).map_err(DurableError::io("sync", folder))?;
    }
    Ok(())
}

fn filled(path: &Path, bytes: &[u8]) -> io::Result<AtomicFile> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// A file that is filled bit by bit and appears whole, by [`commit`](Self::commit). Dropped before that, it leaves nothing.
///
/// Like [`std::fs::File`] it is not buffered, and its errors are those of the system, without the path.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    file: NamedTempFile,
    /// Bytes written since a sync was begun.
    unsynced: u64,
    /// A sync that was begun, on a thread of its own.
    sync: Option<JoinHandle<io::Result<()>>>,
}

impl AtomicFile {
    /// Begins a file, under a temporary name in the same folder. A file that is there stays until [`commit`](Self::commit).
    ///
    /// # Errors
    /// If the folder does not exist or cannot be written, or the path is a folder, a device or a pipe, which a file must not take the place of.
    pub fn create(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is not a file has that name",
            ));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
        #[cfg(unix)]
        {
            // A file that stays temporary is private to its owner; this one gets the permissions of any new file.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        Ok(Self {
            path: path.into(),
            file: builder.tempfile_in(folder_of(path))?,
            unsynced: 0,
            sync: None,
        })
    }

    /// Gives the file its name, once it is on the disk.
    ///
    /// # Errors
    /// If the disk is full or fails, or something that is not a file has the name, which stays as it was. Only if the
    /// folder cannot be synced is the file there, and may be lost again with the power.
    pub fn commit(mut self) -> io::Result<()> {
        self.end_sync()?;
        self.file.as_file().sync_all()?;
        let Self { path, file, .. } = self;
        file.persist(&path)?;
        sync_folder(folder_of(&path))
    }

    /// Begins a sync unless one is under way; the error of the last one otherwise, if it had one.
    fn begin_sync(&mut self) -> io::Result<()> {
        if self.sync.as_ref().is_some_and(|sync| !sync.is_finished()) {
            return Ok(());
        }
        self.end_sync()?;
        let file = self.file.as_file().try_clone()?;
        self.sync = Some(thread::Builder::new().spawn(move || file.sync_data())?);
        self.unsynced = 0;
        Ok(())
    }

    /// Waits for the sync under way. The system tells of an error once, so it must not be lost here.
    fn end_sync(&mut self) -> io::Result<()> {
        let Some(sync) = self.sync.take() else {
            return Ok(());
        };
        let panicked = |_| Err(io::Error::other("the thread that syncs it panicked"));
        sync.join().unwrap_or_else(panicked)
    }

    fn rename(self) -> io::Result<()> {
        self.file.persist(self.path)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsynced >= SYNC_EVERY {
            self.begin_sync()?;
        }
        let written = self.file.as_file_mut().write(bytes)?;
        self.unsynced += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// What has been written can be read back and written over before the file appears.
impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

impl Read for AtomicFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.as_file_mut().read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_and_devices_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut paths = vec![folder.clone()];
        if cfg!(unix) {
            let device = dir.path().join("null");
            std::os::unix::fs::symlink("/dev/null", &device).unwrap();
            paths.push(device);
        }
        for path in paths {
            let error = atomic_write(&path, b"x").unwrap_err().to_string();
            assert!(error.contains("not a file has that name"), "{error}");
        }
        assert!(folder.is_dir());
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for write in [atomic_write, write_unsynced] {
            write(&path, b"old and long").unwrap();
            write(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        atomic_write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of the new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_written_can_be_read_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"to be known later").unwrap();
        file.seek(SeekFrom::Start(6)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "known later");
        file.rewind().unwrap();
        file.write_all(b"IS").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"IS be known later");
    }

    #[test]
    fn a_large_file_is_synced_before_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = AtomicFile::create(&path).unwrap();
        let block = vec![7; (SYNC_EVERY / 2) as usize];
        for part in 0..5 {
            assert_eq!(file.sync.is_some(), part > 2, "{part}");
            file.write_all(&block).unwrap();
        }
        assert!(file.unsynced < 5 * block.len() as u64);
        file.commit().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 5 * block.len() as u64);
    }

    #[test]
    fn an_early_sync_that_failed_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"lost").unwrap();
        file.sync = Some(thread::spawn(|| Err(io::Error::other("a disk that fails"))));
        let error = file.commit().unwrap_err().to_string();
        assert_eq!(error, "a disk that fails");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
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
        let missing = dir.path().join("none/file");
        let error = sync_files([missing.as_path()]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot sync {}: No such file", missing.display())),
            "{error}"
        );
        // A folder of that name: the rename fails, and the temporary file must go.
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        assert!(atomic_write(&folder, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
