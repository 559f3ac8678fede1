//! An append-only file of records.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::DurableError;
use crate::folder::{folder_of, sync_folder};
use crate::jsonl::{parse_line, to_jsonl};

/// An append-only file with one record of JSON a line, each on the disk before [`append`](Self::append) returns.
///
/// A crash can tear only the last line, which nobody was told had been written; [`open`](Self::open) cuts it off, unless
/// it lacks nothing but the line end. While a journal is open its file is locked, so that two processes cannot write the
/// same one; where the file system knows no locks, nothing checks that.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    /// Stands at the end of the whole records, unless `torn`.
    file: File,
    /// Bytes of whole records.
    len: u64,
    /// Whether a failed write may have left bytes after them.
    torn: bool,
    /// Bytes that `open` cut off.
    repaired: u64,
    records: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens the journal at `path`, creating it if there is none, and returns its records in order. The folder must exist.
    ///
    /// # Errors
    /// - [`DurableError::Io`] if it cannot be created, read or repaired;
    /// - [`DurableError::Locked`] if it is open elsewhere;
    /// - [`DurableError::Line`] if a line other than a torn last one is no record of this type. The file is then left as
    ///   it is.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Vec<T>), DurableError> {
        let path = path.into();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(DurableError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            // Some network file systems know no locks; that shall not keep anyone from working.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(DurableError::io("lock", &path)(error)),
            Err(TryLockError::WouldBlock) => return Err(DurableError::Locked { path }),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(DurableError::io("read", &path))?;
        let (records, whole) = parse(&path, &bytes)?;
        let torn = bytes.split_off(whole);
        let mut journal = Self {
            path,
            file,
            len: whole as u64,
            torn: !torn.is_empty(),
            repaired: torn.len() as u64,
            records: PhantomData,
        };
        journal
            .repair(bytes.last().is_some_and(|&byte| byte != b'\n'))
            .map_err(DurableError::io("repair", &journal.path))?;
        sync_folder(folder_of(&journal.path)).map_err(DurableError::io("create", &journal.path))?;
        Ok((journal, records))
    }

    /// Cuts off what is torn, and ends the last line.
    fn repair(&mut self, unended: bool) -> io::Result<()> {
        if self.torn {
            self.cut()?;
            self.file.sync_all()?;
        }
        if unended { self.write(b"\n") } else { Ok(()) }
    }

    /// The records of the journal at `path`, without opening it for writing. A torn last line is passed over.
    ///
    /// # Errors
    /// [`DurableError::Io`] if it cannot be read, [`DurableError::Line`] as for [`open`](Self::open).
    pub fn read(path: &Path) -> Result<Vec<T>, DurableError> {
        let bytes = fs::read(path).map_err(DurableError::io("read", path))?;
        parse(path, &bytes).map(|(records, _)| records)
    }

    /// Appends one record; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`DurableError::Serialize`], or [`DurableError::Io`], for example when the disk is full. The journal then holds
    /// the records it held before, and the call may be repeated.
    pub fn append(&mut self, record: &T) -> Result<(), DurableError> {
        self.append_all(std::slice::from_ref(record))
    }

    /// Appends several records with one sync; after a crash, the first few of them may be there.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_all(&mut self, records: &[T]) -> Result<(), DurableError> {
        let bytes = to_jsonl(&self.path, records)?;
        self.write(&bytes)
            .map_err(DurableError::io("append to", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        self.torn = true;
        let written = self.file.write_all(bytes);
        match written.and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.torn = false;
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What cannot be cut off now is cut off before the next write, or when the journal is opened again.
                let _ = self.cut();
                Err(error)
            }
        }
    }

    /// Removes what is behind the whole records.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.torn = false;
        Ok(())
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a torn last line that [`open`](Self::open) cut off; 0 if the file was whole.
    pub fn repaired_bytes(&self) -> u64 {
        self.repaired
    }

    /// Removes the file.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn remove(self) -> Result<(), DurableError> {
        fs::remove_file(&self.path)
            .and_then(|()| sync_folder(folder_of(&self.path)))
            .map_err(DurableError::io("remove", &self.path))
    }
}

/// The records, and the number of bytes they take.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(Vec<T>, usize), DurableError> {
    let mut records = Vec::new();
    let mut len = 0;
    for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
        let record = parse_line(path, number, line);
        let torn = if line.ends_with(b"\n") {
            // A disk may get the end of a line before its beginning, where it then has zeros, which JSON never has.
            len + line.len() == bytes.len() && line.contains(&0)
        } else {
            // The beginning of a number may be a number; of all else, only the whole is JSON.
            record.is_err() || line.last().is_some_and(u8::is_ascii_digit)
        };
        if torn {
            break;
        }
        records.push(record?);
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
        let whole = dir.path().join("journal.jsonl");
        let (mut journal, old) = Journal::open(&whole).unwrap();
        assert_eq!(old, []);
        for record in records() {
            journal.append(&record).unwrap();
        }
        drop(journal);
        let bytes = fs::read(&whole).unwrap();

        let path = dir.path().join("torn.jsonl");
        for cut in 0..=bytes.len() {
            let left = &bytes[..cut];
            fs::write(&path, left).unwrap();
            // A line that lacks nothing but its end is whole.
            let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n' && at <= cut);
            let (lines, end) = ends.fold((0, 0), |(lines, _), at| (lines + 1, at + 1));
            assert_eq!(Journal::<Record>::read(&path).unwrap(), records()[..lines]);
            let (mut journal, old) = Journal::open(&path).unwrap();
            assert_eq!(old, records()[..lines]);
            assert_eq!(journal.repaired_bytes(), cut.saturating_sub(end) as u64);
            journal.append_all(&records()[lines..]).unwrap();
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), bytes, "cut at {cut}");
        }
    }

    #[test]
    fn a_number_without_a_line_end_may_be_half_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        fs::write(&path, "1\n23").unwrap();
        let (mut journal, old) = Journal::open(&path).unwrap();
        assert_eq!((old, journal.repaired_bytes()), (vec![1], 2));
        journal.append(&234).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n234\n");
    }

    #[test]
    fn a_last_line_with_zeros_is_torn_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let good = b"{\"id\":1,\"text\":\"plain\"}\n".as_slice();
        fs::write(&path, [good, b"\0\0\0\0\"}\n"].concat()).unwrap();
        let (journal, old) = Journal::<Record>::open(&path).unwrap();
        assert_eq!((old, journal.repaired_bytes()), (records()[..1].into(), 7));
        journal.remove().unwrap();
        assert!(!path.exists());
        // With a whole record behind it, it is damage.
        fs::write(&path, [b"\0\0\"}\n", good].concat()).unwrap();
        let error = Journal::<Record>::open(&path).unwrap_err();
        assert!(matches!(error, DurableError::Line { line: 1, .. }));
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
        // A last line that has its end is not torn, be it no JSON or of another type.
        for text in ["damaged\n", "{\"id\":1}\n"] {
            fs::write(&path, text).unwrap();
            let error = Journal::<Record>::open(&path).unwrap_err();
            assert!(matches!(error, DurableError::Line { line: 1, .. }));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
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
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none/journal.jsonl");
        for (path, cause) in [
            (dir.path(), "Is a directory"),
            (&missing, "No such file or directory"),
        ] {
            let error = Journal::<Record>::open(path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot open {}: {cause}", path.display())),
                "{error}"
            );
        }
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
