//! Curves of a training for `TensorBoard`.
//!
//! A file of events is a sequence of records (`TFRecord`: length, its checksum, data, its checksum) that hold protocol buffers `Event` of tensorboard's `event.proto`. The few fields of them that are
//! needed are written here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use selma_durable::create_folder;

use crate::SelmaError;

/// A file of events to which numbers are added.
#[derive(Debug)]
pub struct TensorBoardLog {
    path: PathBuf,
    file: File,
}

impl TensorBoardLog {
    /// Begins a file of its own in a folder, which is made if need be. `TensorBoard` shows all files of a folder as one run, so that a training that goes on adds to its
    /// curves.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn create(folder: &Path) -> Result<Self, SelmaError> {
        create_folder(folder)?;
        let nanoseconds = now().as_nanos();
        let path = folder.join(format!("events.out.tfevents.{nanoseconds}.selma"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(unwritable(&path))?;
        let mut log = Self { path, file };
        let version = field(3, b"brain.Event:2");
        log.write(&event(0, &version))?;
        Ok(log)
    }

    /// Adds the values of a step, each with the name of its curve.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails.
    pub fn push(&mut self, step: usize, values: &[(&str, f32)]) -> Result<(), SelmaError> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = field(1, tag.as_bytes());
            // Field 2, four bytes.
            entry.push(2 << 3 | 5);
            entry.extend(value.to_le_bytes());
            summary.extend(field(1, &entry));
        }
        self.write(&event(step, &field(5, &summary)))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), SelmaError> {
        let written = self.file.write_all(&record(data));
        written.map_err(unwritable(&self.path))
    }
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> SelmaError {
    let path = path.to_owned();
    move |source| SelmaError::Io {
        action: "write",
        path,
        source,
    }
}

fn now() -> std::time::Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// A record of a file.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_checksum(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_checksum(data).to_le_bytes());
    bytes
}

/// CRC-32C, turned and shifted so that the checksum of data with checksums in it is sound.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// An `Event`: wall time, step, and what happened.
fn event(step: usize, what: &[u8]) -> Vec<u8> {
    // Field 1, eight bytes; field 2, a number.
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(now().as_secs_f64().to_le_bytes());
    bytes.push(2 << 3);
    bytes.extend(varint(step as u64));
    bytes.extend(what);
    bytes
}

/// A field with bytes: a text or another message.
fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    bytes.extend(varint(data.len() as u64));
    bytes.extend(data);
    bytes
}

/// Seven bits a byte, the lowest first; the highest bit of a byte says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_checksums_are_those_of_the_formats() {
        assert_eq!(varint(1), [1]);
        assert_eq!(varint(300), [0xac, 0x02]);
        // The check value of CRC-32C, masked.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(field(1, b"loss"), [0x0a, 4, b'l', b'o', b's', b's']);
        let bytes = record(b"abc");
        assert_eq!(bytes.len(), 8 + 4 + 3 + 4);
        assert_eq!(bytes.get(..8), Some(&[3, 0, 0, 0, 0, 0, 0, 0][..]));
    }

    #[test]
    fn every_start_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tensorboard");
        for _ in 0..2 {
            let mut log = TensorBoardLog::create(&folder).unwrap();
            log.push(1, &[("loss", 0.5), ("grad_norm", 2.0)]).unwrap();
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }
}
