//! A file that grows over several attempts, with its hash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use selma_durable::{DurableError, sync_files};
use sha2::{Digest as _, Sha256};

use crate::HubError;

/// What has come of a file so far, now and in earlier attempts.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
}

impl Partial {
    /// Opens the file, or begins it; what is there is hashed.
    pub(crate) fn open(path: &Path) -> Result<Self, HubError> {
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let mut partial = Self {
            path: path.to_owned(),
            file: opened.map_err(HubError::disk("open", path, 0))?,
            hash: Sha256::new(),
            len: 0,
        };
        partial.read().map_err(DurableError::io("read", path))?;
        Ok(partial)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = self.file.read(&mut buffer)?;
            let read = buffer.get(..count).unwrap_or_default();
            if read.is_empty() {
                return Ok(());
            }
            self.hash.update(read);
            self.len += read.len() as u64;
        }
    }

    /// Bytes that are there.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes at the end, of `left` that are still to come.
    pub(crate) fn append(&mut self, bytes: &[u8], left: u64) -> Result<(), HubError> {
        self.check_alone()?;
        let written = self.file.write_all(bytes);
        written.map_err(HubError::disk("write", &self.path, left))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Sees that nobody else has written. Some cluster file systems give one lock to all who ask.
    fn check_alone(&self) -> Result<(), HubError> {
        let found = self.file.metadata();
        let found = found.map_err(DurableError::io("read", &self.path))?;
        match found.len() == self.len {
            true => Ok(()),
            false => Err(HubError::Busy {
                path: self.path.clone(),
            }),
        }
    }

    /// Throws away what is there.
    pub(crate) fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0);
        emptied.map_err(DurableError::io("write", &self.path))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// SHA-256 of what is there, in hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Gives the file its name, once it is on the disk.
    pub(crate) fn commit(self, path: &Path) -> Result<(), HubError> {
        self.check_alone()?;
        let written = self.file.sync_all();
        written
            .and_then(|()| fs::rename(&self.path, path))
            .map_err(HubError::disk("write", path, 0))?;
        Ok(sync_files([path])?)
    }

    /// Removes the file.
    pub(crate) fn discard(self) -> Result<(), HubError> {
        let removed = fs::remove_file(&self.path);
        Ok(removed.map_err(DurableError::io("remove", &self.path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_all_attempts_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.incomplete");
        let mut partial = Partial::open(&path).unwrap();
        partial.append(b"hello ", 11).unwrap();
        drop(partial);
        let mut partial = Partial::open(&path).unwrap();
        assert_eq!(partial.len(), 6);
        partial.append(b"world", 5).unwrap();
        let expected = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
        assert_eq!(partial.sha256(), expected);
        partial.restart().unwrap();
        partial.append(b"hello world", 11).unwrap();
        assert_eq!(partial.sha256(), expected);
        let whole = dir.path().join("x");
        partial.commit(&whole).unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), b"hello world");
        assert!(!path.exists());
    }

    #[test]
    fn another_writer_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.incomplete");
        let mut first = Partial::open(&path).unwrap();
        first.append(b"hello ", 11).unwrap();
        let mut second = Partial::open(&path).unwrap();
        second.append(b"world", 5).unwrap();
        let appended = first.append(b"world", 5);
        for result in [appended, first.commit(&dir.path().join("x"))] {
            let error = result.unwrap_err().to_string();
            assert!(error.ends_with("so that two would write to it"), "{error}");
        }
    }
}
