//! The filter on disk.
//!
//! A file of JSON lines: a [`Header`], then each text that was ever kept as a string, or `null` for one that was removed,
//! then a [`Footer`]. The index is not stored; it is made anew in about the time that offering the texts takes.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use selma_durable::{AtomicFile, DurableError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DiversityFilter, FilterConfig};
use crate::RougeError;

const FORMAT: &str = "selma-rouge filter";
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    /// Lines of texts that follow.
    texts: usize,
    config: FilterConfig,
}

/// What is read of the first line before anything else.
#[derive(Debug, Deserialize)]
struct Format {
    format: String,
    version: u32,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    /// SHA-256 of the bytes of all lines before, in hexadecimal digits.
    sha256: String,
}

impl DiversityFilter {
    /// Writes the filter to a file, whole or not at all. [`load`](Self::load) makes of it a filter that gives the same
    /// verdicts and numbers.
    ///
    /// # Errors
    /// [`RougeError::Durable`] if the folder does not exist or cannot be written, or the disk is full. A file that stood
    /// there is then unchanged.
    pub fn save(&self, path: &Path) -> Result<(), RougeError> {
        let io = || DurableError::io("write", path);
        let mut file = BufWriter::new(AtomicFile::create(path).map_err(io())?);
        let mut hash = Sha256::new();
        let mut write = |line: Vec<u8>| {
            hash.update(&line);
            file.write_all(&line).map_err(io())
        };
        write(to_line(
            path,
            &Header {
                format: FORMAT.to_owned(),
                version: VERSION,
                texts: self.store.next_id(),
                config: self.config,
            },
        )?)?;
        for id in 0..self.store.next_id() {
            write(to_line(path, &self.store.get(id))?)?;
        }
        let footer = Footer {
            sha256: hex::encode(hash.finalize()),
        };
        file.write_all(&to_line(path, &footer)?).map_err(io())?;
        let file = file.into_inner().map_err(|error| error.into_error());
        file.and_then(AtomicFile::commit).map_err(io())?;
        Ok(())
    }

    /// Reads a filter that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`RougeError::Durable`] if the file cannot be read or a line is not what it should be, [`RougeError::NotAState`] and
    /// [`RougeError::StateVersion`] for another file, [`RougeError::StateEnd`] and [`RougeError::StateTexts`] if lines are missing,
    /// [`RougeError::StateChecksum`] if its bytes are not those that were written, and as [`FilterConfig::validate`].
    pub fn load(path: &Path) -> Result<Self, RougeError> {
        let bytes = fs::read(path).map_err(DurableError::io("read", path))?;
        let not_a_state = || RougeError::NotAState { path: path.into() };
        let first = bytes.split(|&byte| byte == b'\n').next();
        let format: Format = first
            .and_then(|line| serde_json::from_slice(line).ok())
            .ok_or_else(not_a_state)?;
        if format.format != FORMAT {
            return Err(not_a_state());
        }
        if format.version != VERSION {
            return Err(RougeError::StateVersion {
                path: path.into(),
                expected: VERSION,
                found: format.version,
            });
        }
        let lines = checked_lines(path, &bytes)?;
        let mut lines = (1..).zip(lines.split(|&byte| byte == b'\n'));
        let Some((number, line)) = lines.next() else {
            return Err(not_a_state());
        };
        let header: Header = from_line(path, number, line)?;
        let mut filter = Self::with_config(header.config)?;
        for (number, line) in lines {
            match from_line::<Option<String>>(path, number, line)? {
                Some(text) => filter.insert(&text),
                None => filter.skip(),
            };
        }
        if filter.store.next_id() != header.texts {
            return Err(RougeError::StateTexts {
                path: path.into(),
                expected: header.texts,
                found: filter.store.next_id(),
            });
        }
        Ok(filter)
    }

    /// Gives out a number to no text.
    fn skip(&mut self) -> usize {
        let id = self.store.next_id();
        self.store.push("", &[], 0);
        self.store.remove(id);
        id
    }
}

/// The lines before the last one, which must hold their checksum.
fn checked_lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], RougeError> {
    let truncated = || {
        let found = bytes.iter().filter(|&&byte| byte == b'\n').count();
        RougeError::StateEnd {
            path: path.into(),
            lines: found,
        }
    };
    let whole = bytes.strip_suffix(b"\n").ok_or_else(truncated)?;
    let end = whole.iter().rposition(|&byte| byte == b'\n');
    let (lines, last) = end
        .and_then(|end| whole.split_at_checked(end))
        .ok_or_else(truncated)?;
    let footer: Footer = serde_json::from_slice(last).map_err(|_| truncated())?;
    let mut hash = Sha256::new();
    hash.update(lines);
    hash.update(b"\n");
    let found = hex::encode(hash.finalize());
    if found != footer.sha256 {
        return Err(RougeError::StateChecksum {
            path: path.into(),
            expected: footer.sha256.into(),
            found: found.into(),
        });
    }
    Ok(lines)
}

fn to_line(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, DurableError> {
    selma_durable::to_jsonl(path, [value])
}

fn from_line<T: DeserializeOwned>(
    path: &Path,
    line: usize,
    json: &[u8],
) -> Result<T, DurableError> {
    serde_json::from_slice(json).map_err(|error| DurableError::Line {
        path: path.into(),
        line,
        error,
    })
}
