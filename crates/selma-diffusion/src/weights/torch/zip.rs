//! Where the records of a zip archive lie, for archives without compression.
//!
//! The format is PKWARE's APPNOTE 6.3.10. Its directory stands at the end; sizes and places of 4 GiB and more are in an
//! extra field of each entry (Zip64).

use std::collections::HashMap;
use std::ops::Range;

/// The first bytes of an archive with at least one record.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";

/// Bytes of the end of the directory, without the comment, which is at most 65,535 long.
const END_LENGTH: usize = 22;
const END_64_LOCATOR_LENGTH: usize = 20;
const ENTRY_LENGTH: usize = 46;
const LOCAL_LENGTH: usize = 30;

/// What is wrong with an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ZipError {
    /// It ends too early, or its parts contradict each other.
    Damaged(&'static str),
    /// A record is compressed or encrypted.
    Packed(String),
    /// Two records have the same name.
    Twice(String),
}

/// The bytes of each record.
///
/// # Errors
///
/// If the archive is damaged, or one of its records is not stored as it is.
pub(super) fn records(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, ZipError> {
    let (count, mut at) = directory(bytes)?;
    let mut records = HashMap::new();
    for _ in 0..count {
        let no_entry = ZipError::Damaged("an entry of the directory is missing");
        let entry = bytes.get(at..).filter(|entry| entry.starts_with(ENTRY));
        let entry = entry.ok_or(no_entry)?;
        let (name, place, length) = record(bytes, entry)?;
        at += length;
        if records.insert(name.clone(), place).is_some() {
            return Err(ZipError::Twice(name));
        }
    }
    Ok(records)
}

/// Count of the directory's entries, and where they begin.
fn directory(bytes: &[u8]) -> Result<(u64, usize), ZipError> {
    let no_end = ZipError::Damaged("the directory at its end is missing");
    let last = bytes.len().checked_sub(END_LENGTH);
    let first = bytes
        .len()
        .saturating_sub(END_LENGTH + usize::from(u16::MAX));
    let end = last.and_then(|last| {
        let mut places = (first..=last).rev();
        places.find(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(END)))
    });
    let end = end.ok_or(no_end)?;
    let directory_64 = || {
        let locator = bytes.get(end.checked_sub(END_64_LOCATOR_LENGTH)?..end)?;
        let place = locator.strip_prefix(END_64_LOCATOR)?;
        let end_64 = bytes.get(usize::try_from(u64_at(place, 4)?).ok()?..)?;
        if !end_64.starts_with(END_64) {
            return None;
        }
        Some((u64_at(end_64, 32)?, u64_at(end_64, 48)?))
    };
    let directory_32 = || {
        let end = bytes.get(end..)?;
        Some((u64::from(u16_at(end, 10)?), u64::from(u32_at(end, 16)?)))
    };
    let (count, start) = directory_64()
        .or_else(directory_32)
        .ok_or(ZipError::Damaged("the directory at its end is cut off"))?;
    let start = usize::try_from(start).map_err(|_| ZipError::Damaged("it is too large"))?;
    Ok((count, start))
}

/// Name and place of a record, and the length of its entry in the directory.
fn record(bytes: &[u8], entry: &[u8]) -> Result<(String, Range<usize>, usize), ZipError> {
    let cut = || ZipError::Damaged("an entry of the directory is cut off");
    let short = |at| u16_at(entry, at).map(usize::from).ok_or_else(cut);
    let (name_length, extra_length) = (short(28)?, short(30)?);
    let length = ENTRY_LENGTH + name_length + extra_length + short(32)?;
    let name_end = ENTRY_LENGTH + name_length;
    let name = entry.get(ENTRY_LENGTH..name_end).ok_or_else(cut)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let extra = entry
        .get(name_end..name_end + extra_length)
        .ok_or_else(cut)?;
    let (flags, method) = (short(8)?, short(10)?);
    if method != 0 || flags & 1 != 0 {
        return Err(ZipError::Packed(name));
    }
    // In this order those of the three that have no room in 32 bits stand in the extra field.
    let mut large = zip_64(extra);
    let mut long = |at| {
        let word = u32_at(entry, at).ok_or_else(cut)?;
        if word != u32::MAX {
            return Ok(u64::from(word));
        }
        let (value, rest) = large.split_first_chunk().ok_or_else(cut)?;
        large = rest;
        Ok(u64::from_le_bytes(*value))
    };
    let (size, packed, local) = (long(24)?, long(20)?, long(42)?);
    if size != packed {
        return Err(ZipError::Damaged("a stored record has two sizes"));
    }
    let place = || {
        let local = usize::try_from(local).ok()?;
        let header = bytes.get(local..)?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        let lengths = usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
        let start = local.checked_add(LOCAL_LENGTH + lengths)?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        (end <= bytes.len()).then_some(start..end)
    };
    let place = place().ok_or(ZipError::Damaged(
        "a record lies elsewhere than its entry says",
    ))?;
    Ok((name, place, length))
}

/// The data of the extra field with the number 1.
fn zip_64(mut extra: &[u8]) -> &[u8] {
    while let (Some(kind), Some(size)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let (data, rest) = extra
            .get(4..)
            .unwrap_or_default()
            .split_at_checked(size.into())
            .unwrap_or_default();
        if kind == 1 {
            return data;
        }
        extra = rest;
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
