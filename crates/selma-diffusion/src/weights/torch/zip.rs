//! The format of PyTorch 1.6 and later: a zip archive of stored files.
//!
//! `NAME/data.pkl` says which tensors there are, `NAME/data/KEY` are their storages, and `NAME/byteorder`, in later
//! versions, is `little` or `big`.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::unpickle;
use super::state_dict::StateDict;
use crate::weights::WeightsError;
use crate::weights::mapped::MappedFile;

/// The first bytes of a zip archive with at least one file.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

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
    let damaged = |source| WeightsError::Zip {
        path: file.path().to_owned(),
        source,
    };
    let mut archive = ZipArchive::new(Cursor::new(file.bytes())).map_err(damaged)?;
    let mut records = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let record = archive.by_index_raw(index).map_err(damaged)?;
        let name = record.name().map_err(damaged)?.into_owned();
        if record.compression() != CompressionMethod::Stored || record.encrypted() {
            return Err(WeightsError::Archive {
                path: file.path().to_owned(),
                what: name,
                expected: "a record without compression, as PyTorch writes it",
                found: format!("{:?}", record.compression()),
            });
        }
        let place = record.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(record.size()).ok()?)?;
            (end <= file.bytes().len()).then_some(start..end)
        });
        let Some(place) = place else {
            return Err(damaged(ZipError::InvalidArchive(
                "a record lies beyond the end of the file".into(),
            )));
        };
        if records.insert(name.clone(), place).is_some() {
            return Err(WeightsError::Archive {
                path: file.path().to_owned(),
                what: name,
                expected: "one record of a name",
                found: "two".to_owned(),
            });
        }
    }
    Ok(records)
}
