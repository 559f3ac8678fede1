//! The format of PyTorch 1.6 and later: a zip archive of stored files.
//!
//! `NAME/data.pkl` says which tensors there are, `NAME/data/KEY` are their storages, and `NAME/byteorder`, in later
//! versions, is `little` or `big`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::pickle::unpickle;
use super::state_dict::StateDict;
use super::zip::{self, ZipError};
use crate::weights::WeightsError;
use crate::weights::mapped::MappedFile;

/// Reads the state dictionary.
pub(super) fn read(file: &Arc<MappedFile>) -> Result<StateDict, WeightsError> {
    let wrong = |what: &str, expected, found: &str| WeightsError::Archive {
        path: file.path().to_owned(),
        what: what.to_owned(),
        expected,
        found: found.to_owned(),
    };
    let records = records(file)?;
    let Some(prefix) = records
        .keys()
        .find_map(|name| name.strip_suffix("/data.pkl"))
    else {
        return Err(wrong("archive", "the record data.pkl of PyTorch", "none"));
    };
    let record = |name: &str| {
        let range = records.get(&format!("{prefix}/{name}"))?.clone();
        file.bytes().get(range)
    };
    if record("constants.pkl").is_some() {
        let found = "a TorchScript program";
        return Err(wrong("archive", "a saved state dictionary", found));
    }
    match record("byteorder") {
        None | Some(b"little") => {}
        Some(other) => {
            let found = String::from_utf8_lossy(other.get(..16).unwrap_or(other)).into_owned();
            return Err(wrong("byte order", "little", &found));
        }
    }
    let pickle = record("data.pkl").unwrap_or_default();
    let unpickled = unpickle(pickle).map_err(|error| error.in_file(file.path()))?;
    StateDict::new(file, unpickled.value, &unpickled.objects, |storage| {
        let name = format!("data/{}", storage.key);
        let range = records.get(&format!("{prefix}/{name}"));
        let range = range.ok_or_else(|| wrong(&name, "the numbers of a tensor", "nothing"))?;
        let size = storage.dtype.map_or(0, |dtype| dtype.bitsize() / 8);
        if storage.len.checked_mul(size) != Some(range.len()) {
            let found = format!("{} bytes for {} numbers", range.len(), storage.len);
            return Err(wrong(&name, "the numbers of a tensor", &found));
        }
        Ok(range.start)
    })
}

/// Where each record lies in the file.
fn records(file: &Arc<MappedFile>) -> Result<HashMap<String, Range<usize>>, WeightsError> {
    let path = file.path().to_owned();
    zip::records(file.bytes()).map_err(|error| match error {
        ZipError::Damaged(found) => WeightsError::Zip { path, found },
        ZipError::Packed(what) => WeightsError::Archive {
            path,
            what,
            expected: "a record without compression, as PyTorch writes it",
            found: "a compressed or encrypted one".to_owned(),
        },
        ZipError::Twice(what) => WeightsError::Archive {
            path,
            what,
            expected: "one record of a name",
            found: "two".to_owned(),
        },
    })
}
