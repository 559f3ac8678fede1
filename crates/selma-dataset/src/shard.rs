//! What is in a tar archive, and where.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use selma_durable::DurableError;
use tar::{Archive, EntryType};

use crate::row::is_plain_path;
use crate::skips::Skips;
use crate::{DatasetError, Problem};

const BLOCK: u64 = 512;

/// A file in an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its path, with `/` between its parts.
    pub(crate) name: String,
    /// Where its content begins in the archive.
    pub(crate) offset: u64,
    /// Bytes of content.
    pub(crate) len: u64,
    /// The first of them, as many as were asked for.
    pub(crate) start: Vec<u8>,
}

/// Lists the files in an archive, with the first `keep(name)` bytes of each; the rest is jumped over. Names that begin with a
/// dot or lie between double underscores are passed over, as in the library `webdataset`.
///
/// An archive must be whole: that of a writer that was stopped, or a download that was, is an error, also where it happens to
/// end with a whole member. If that is skipped, what comes before the damage is listed.
pub(crate) fn list(
    path: &Path,
    keep: impl Fn(&str) -> u64,
    skips: &mut Skips,
) -> Result<Vec<Member>, DatasetError> {
    let io_error = |error| DurableError::io("read", path)(error);
    let file = File::open(path).map_err(DurableError::io("open", path))?;
    let len = file.metadata().map_err(io_error)?.len();
    let mut archive = Archive::new(file);
    let mut members = Vec::new();
    let mut end = 0;
    let mut last = "its beginning".to_owned();
    let mut damage = None;
    for entry in archive.entries_with_seek().map_err(io_error)? {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                damage = Some(format!("none after {last}: {error}"));
                break;
            }
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let there = len.saturating_sub(entry.raw_file_position());
        if entry.size() > there {
            let size = entry.size();
            damage = Some(format!("{there} of the {size} bytes of `{name}`"));
            break;
        }
        end = entry.raw_file_position() + entry.size();
        last = format!("`{name}`");
        let member = member(path, &mut entry, &keep);
        members.extend(skips.take(member)?.flatten());
    }
    let damage = match damage {
        Some(damage) => Some(damage),
        None => damage_after(archive.into_inner(), end, &last).map_err(io_error)?,
    };
    if let Some(found) = damage {
        skips.take::<()>(Err(DatasetError::Entry {
            path: path.into(),
            problem: Problem::Torn,
            expected: "whole members and an end mark".to_owned(),
            found,
        }))?;
    }
    Ok(members)
}

/// An entry, if it is a file that is not to be passed over.
fn member<R: Read>(
    path: &Path,
    entry: &mut tar::Entry<'_, R>,
    keep: impl Fn(&str) -> u64,
) -> Result<Option<Member>, DatasetError> {
    let bytes = entry.path_bytes().into_owned();
    let name = String::from_utf8_lossy(&bytes).into_owned();
    let bad = |expected: &str, found: String| DatasetError::Entry {
        // An absolute name would take the place of the archive's.
        path: path.join(name.trim_start_matches('/')),
        problem: Problem::BadName,
        expected: expected.to_owned(),
        found,
    };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(None),
        other => return Err(bad("a file or a folder", format!("{other:?}"))),
    }
    let plain = name.strip_prefix("./").unwrap_or(&name);
    if std::str::from_utf8(&bytes).is_err() || !is_plain_path(plain) {
        return Err(bad("a plain relative path", format!("`{name}`")));
    }
    let meta = !plain.contains('/') && plain.starts_with("__") && plain.ends_with("__");
    if meta || plain.split('/').any(|part| part.starts_with('.')) {
        return Ok(None);
    }
    let mut start = Vec::new();
    let (offset, len) = (entry.raw_file_position(), entry.size());
    entry
        .take(keep(plain))
        .read_to_end(&mut start)
        .map_err(DurableError::io("read", path))?;
    Ok(Some(Member {
        name: plain.to_owned(),
        offset,
        len,
        start,
    }))
}

/// What is wrong behind the last member, which ends at `end`: there should be a block of zeros, and nothing but zeros after it.
/// The file stands behind the last block that was read.
fn damage_after(mut file: File, end: u64, last: &str) -> io::Result<Option<String>> {
    if file.stream_position()? < end.next_multiple_of(BLOCK) + BLOCK {
        return Ok(Some(format!("no end mark after {last}")));
    }
    let mut block = [0; BLOCK as usize];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(None);
        }
        if block.iter().take(read).any(|&byte| byte != 0) {
            return Ok(Some(format!("more after the end mark behind {last}")));
        }
    }
}
