//! An append-only file of records.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{create_folder, folder_of, io_error, sync_folder};
use crate::DatasetError;

/// An append-only file with one record of JSON a line, each on the disk before [`append`](Self::append) returns.
///
/// A crash can tear only the last line, which nobody was told had been written; [`open`](Self::open) cuts it off. While
/// a journal is open its file is locked, so that two processes cannot write the same one; where the file system knows no
/// locks, nothing checks that.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
    /// Whether a failed write may have left bytes after them.
    torn: bool,
    records: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens the journal at `path`, creating it and its folder if there is none, and returns its records in order.
    ///
    /// # Errors
    /// - [`DatasetError::Io`] if it cannot be created, read or repaired;
    /// - [`DatasetError::Locked`] if it is open elsewhere;
    /// - [`DatasetError::Line`] if a line other than a torn last one is no record of this type. The file is then left as
    ///   it is.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Vec<T>), DatasetError> {
        let path = path.into();
        let folder = folder_of(&path);
        create_folder(folder)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
            Err(TryLockError::WouldBlock) => return Err(DatasetError::Locked { path }),
        }
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        let (records, len) = parse(&path, &bytes)?;
        if len < bytes.len() {
            file.set_len(len as u64)
                .and_then(|()| file.sync_all())
                .map_err(io_error("repair", &path))?;
        }
        sync_folder(folder).map_err(io_error("create", &path))?;
        let journal = Self {
            path,
            file,
            len: len as u64,
            torn: false,
            records: PhantomData,
        };
        Ok((journal, records))
    }

    /// The records of the journal at `path`, without opening it for writing. A torn last line is passed over.
    ///
    /// # Errors
    /// [`DatasetError::Io`] if it cannot be read, [`DatasetError::Line`] as for [`open`](Self::open).
    pub fn read(path: &Path) -> Result<Vec<T>, DatasetError> {
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        parse(path, &bytes).map(|(records, _)| records)
    }

    /// Appends one record; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`DatasetError::Serialize`], or [`DatasetError::Io`], for example when the disk is full. The journal then holds
    /// the records it held before, and the call may be repeated.
    pub fn append(&mut self, record: &T) -> Result<(), DatasetError> {
        self.append_all(std::slice::from_ref(record))
    }

    /// Appends several records with one sync; after a crash, the first few of them may be there.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_all(&mut self, records: &[T]) -> Result<(), DatasetError> {
        let mut bytes = Vec::new();
        for record in records {
            serde_json::to_writer(&mut bytes, record).map_err(|source| {
                DatasetError::Serialize {
                    path: self.path.clone(),
                    source,
                }
            })?;
            bytes.push(b'\n');
        }
        self.write(&bytes)
            .map_err(io_error("append to", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
        }
        self.torn = true;
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.torn = false;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file.
    ///
    /// # Errors
    /// [`DatasetError::Io`].
    pub fn remove(self) -> Result<(), DatasetError> {
        fs::remove_file(&self.path)
            .and_then(|()| sync_folder(folder_of(&self.path)))
            .map_err(io_error("remove", &self.path))
    }
}

/// The records, and the number of bytes they take.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(Vec<T>, usize), DatasetError> {
    let mut records = Vec::new();
    let mut len = 0;
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice(line) {
            Ok(record) => records.push(record),
            // The disk may have got the end of the last line before its beginning.
            Err(error) if !error.is_data() && len + line.len() == bytes.len() => break,
            Err(source) => {
                return Err(DatasetError::Line {
                    path: path.into(),
                    line: number + 1,
                    source,
                });
            }
        }
        len += line.len();
    }
    Ok((records, len))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Record {
        id: u32,
        text: String,
    }

    fn records() -> Vec<Record> {
        ["plain", "two\nlines", "猫 \u{2028}"]
            .iter()
            .zip(1..)
            .map(|(text, id)| Record {
                id,
                text: (*text).to_owned(),
            })
            .collect()
    }

    #[test]
    fn torn_anywhere_it_keeps_the_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("made/with/its/folder.jsonl");
        let (mut journal, old) = Journal::open(&whole).unwrap();
        assert_eq!(old, []);
        for record in records() {
            journal.append(&record).unwrap();
        }
        drop(journal);
        let bytes = fs::read(&whole).unwrap();

        let path = dir.path().join("torn.jsonl");
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let lines = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(Journal::<Record>::read(&path).unwrap(), records()[..lines]);
            let (mut journal, old) = Journal::open(&path).unwrap();
            assert_eq!(old, records()[..lines]);
            journal.append_all(&records()[lines..]).unwrap();
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), bytes, "cut at {cut}");
        }
    }

    #[test]
    fn a_last_line_that_is_no_json_is_torn_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        fs::write(&path, b"{\"id\":1,\"text\":\"plain\"}\n\0\0\0\0\"}\n").unwrap();
        let (journal, old) = Journal::<Record>::open(&path).unwrap();
        assert_eq!(old, records()[..1]);
        journal.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_corrupt_line_is_named_and_the_file_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let good = "{\"id\":1,\"text\":\"plain\"}\n";
        for (bad, reason) in [
            ("{\"id\":1,\"te\n", "control character"),
            ("\n", "EOF while parsing a value"),
            ("{\"id\":1}\n", "missing field `text`"),
            ("{\"id\":1,\"text\":\"\",\"x\":0}\n", "unknown field `x`"),
            ("{\"id\":-1,\"text\":\"\"}\n", "invalid value: integer `-1`"),
        ] {
            let text = format!("{good}{bad}{good}{{\"id\"");
            fs::write(&path, &text).unwrap();
            let error = Journal::<Record>::open(&path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{}, line 2: {reason}", path.display())),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        // Well-formed, but of another type: no crash does that, even to the last line.
        fs::write(&path, "{\"id\":1}\n").unwrap();
        assert!(matches!(
            Journal::<Record>::open(&path),
            Err(DatasetError::Line { line: 1, .. })
        ));
    }

    #[test]
    fn two_writers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, _) = Journal::<Record>::open(&path).unwrap();
        let error = Journal::<Record>::open(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} is in use by another writer", path.display())
        );
        drop(journal);
        assert!(Journal::<Record>::open(&path).is_ok());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Journal::<Record>::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot open {}: ", dir.path().display())),
            "{error}"
        );
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Journal::<Record>::open(file.join("journal.jsonl"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&*file.to_string_lossy()) && error.contains("File exists"),
            "{error}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_what_it_tore_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&records()[0]).unwrap();
        let disk = std::mem::replace(
            &mut journal.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        let error = journal.append(&records()[1]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "cannot append to {}: No space left",
                path.display()
            )),
            "{error}"
        );
        // Space is there again, but half of the line got through.
        (&disk).write_all(b"{\"id\":2,").unwrap();
        journal.file = disk;
        journal.append(&records()[1]).unwrap();
        assert_eq!(Journal::<Record>::read(&path).unwrap(), records()[..2]);
    }
}
