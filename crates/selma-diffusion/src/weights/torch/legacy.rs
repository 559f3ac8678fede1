//! The format before PyTorch 1.6: five pickles one after the other, then the storages.
//!
//! The pickles are a magic number, the version, facts on the machine, what was saved, and the keys of the storages in
//! the order in which they follow, each with its count before its numbers.

use std::collections::HashMap;
use std::sync::Arc;

use super::pickle::{Value, unpickle};
use super::state_dict::StateDict;
use crate::weights::WeightsError;
use crate::weights::mapped::MappedFile;

/// The first pickle: the number 0x1950a86a20f9469cfc6c in ten bytes.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Reads the state dictionary.
pub(super) fn read(file: &Arc<MappedFile>) -> Result<StateDict, WeightsError> {
    let wrong = |what: &str, expected, found: String| WeightsError::Archive {
        path: file.path().to_owned(),
        what: what.to_owned(),
        expected,
        found,
    };
    let mut at = MAGIC.len();
    let mut next = || {
        let rest = file.bytes().get(at..).unwrap_or_default();
        let read = unpickle(rest).map_err(|error| error.in_file(file.path()))?;
        at += read.length;
        Ok::<_, WeightsError>(read)
    };
    let version = next()?;
    if version.value != Value::Int(1001) {
        let found = version.objects.describe(version.value);
        return Err(wrong("version of the format", "1001", found));
    }
    let machine = next()?;
    if machine.objects.get(machine.value, "little_endian") != Some(Value::Bool(true)) {
        return Err(wrong("byte order", "little", "big".to_owned()));
    }
    let saved = next()?;
    let keys = next()?;
    let sizes: HashMap<&str, usize> = saved
        .objects
        .storages()
        .iter()
        .map(|storage| {
            (
                storage.key,
                storage.dtype.map_or(0, |dtype| dtype.bitsize() / 8),
            )
        })
        .collect();
    let mut places = HashMap::new();
    for &key in keys.objects.sequence(keys.value).unwrap_or_default() {
        let bytes = file.bytes().get(at..).unwrap_or_default();
        let (Value::Str(key), Some(count)) = (key, bytes.first_chunk()) else {
            let found = keys.objects.describe(key);
            return Err(wrong("storages", "a key and a count for each", found));
        };
        let count = u64::from_le_bytes(*count);
        let end = usize::try_from(count).ok().and_then(|count| {
            let bytes = count.checked_mul(*sizes.get(key)?)?;
            at.checked_add(8)?.checked_add(bytes)
        });
        let Some(end) = end.filter(|&end| end <= file.bytes().len()) else {
            return Err(wrong(
                key,
                "its numbers",
                format!("the end before {count} of them"),
            ));
        };
        places.insert(key, (at + 8, count));
        at = end;
    }
    StateDict::new(file, saved.value, &saved.objects, |storage| {
        match places.get(storage.key) {
            Some(&(start, count)) if count == storage.len as u64 => Ok(start),
            Some((_, count)) => Err(wrong(
                storage.key,
                "as many numbers as its tensors say",
                format!("{count} instead of {}", storage.len),
            )),
            None => Err(wrong(
                storage.key,
                "the numbers of a tensor",
                "nothing".to_owned(),
            )),
        }
    })
}
