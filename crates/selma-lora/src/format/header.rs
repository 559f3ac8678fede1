//! Opening safetensors files.

use std::{collections::BTreeSet, fmt, fs::File, io::Read, path::Path};

use safetensors::{SafeTensorError, SafeTensors, tensor::Metadata};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::LoraError;

/// What the `safetensors` crate allows, too.
const LARGEST_HEADER: u64 = 100_000_000;

/// The entry of the metadata that only files of mixtures have.
pub(crate) const MIXTURE_NOTE: &str = "selma_mixture";

/// The tensors and the header of a safetensors file.
///
/// Of two tensors or two notes of one name the reader of the `safetensors` crate keeps the last, other
/// readers the first. Such a file has two meanings and is refused.
pub(crate) fn open(bytes: &[u8]) -> Result<(SafeTensors<'_>, Metadata), LoraError> {
    let unreadable = |error| not_safetensors(bytes, error);
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let json = bytes.get(8..).and_then(|rest| rest.get(..length));
    check_names(json.unwrap_or_default())?;
    Ok((file, header))
}

/// Where the values of a file begin, and its header, checked as [`open`] checks it. The values are not read.
pub(crate) fn read_header(mut file: &File, path: &Path) -> Result<(u64, Metadata), LoraError> {
    let mut size = [0; 8];
    let unreadable = LoraError::unreadable(path);
    let length = file.metadata().map_err(&unreadable)?.len();
    if length < size.len() as u64 {
        return Err(not_safetensors(&[], SafeTensorError::HeaderTooSmall));
    }
    file.read_exact(&mut size).map_err(&unreadable)?;
    let start = size;
    let broken = |error| not_safetensors(&start, error);
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER {
        return Err(broken(SafeTensorError::HeaderTooLarge));
    }
    if size > length - 8 {
        return Err(broken(SafeTensorError::InvalidHeaderLength));
    }
    let mut json = Vec::new();
    let read = file.take(size).read_to_end(&mut json);
    read.map_err(&unreadable)?;
    let text =
        str::from_utf8(&json).map_err(|error| broken(SafeTensorError::InvalidHeader(error)))?;
    // Checks the offsets against each other, the shapes and the number types.
    let metadata: Metadata = serde_json::from_str(text)
        .map_err(|error| broken(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    let start = 8 + size;
    if start.checked_add(metadata.data_len() as u64) != Some(length) {
        return Err(broken(SafeTensorError::MetadataIncompleteBuffer));
    }
    check_names(&json)?;
    Ok((start, metadata))
}

/// What is wrong with a file that begins with these bytes.
fn not_safetensors(start: &[u8], error: SafeTensorError) -> LoraError {
    // A zip file, which PyTorch writes since 1.6, or a bare pickle of protocol 2 to 5.
    let of_torch = start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]);
    if of_torch {
        return LoraError::TorchFile;
    }
    LoraError::NotSafetensors { error }
}

fn check_names(json: &[u8]) -> Result<(), LoraError> {
    let names: Names = serde_json::from_slice(json).map_err(|error| LoraError::NotSafetensors {
        error: SafeTensorError::InvalidHeaderDeserialization(error),
    })?;
    match names.repeated {
        Some(name) => Err(LoraError::RepeatedName { name }),
        None => Ok(()),
    }
}

/// What the header calls tensors and notes, as far as it matters: the first name that comes twice.
#[derive(Debug, Default)]
struct Names {
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = Names::default();
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let inner = if name == "__metadata__" {
                map.next_value::<Option<Self::Value>>()?
                    .and_then(|notes| notes.repeated)
            } else {
                map.next_value::<IgnoredAny>()?;
                None
            };
            let repeated = seen.replace(name);
            names.repeated = names.repeated.or(repeated).or(inner);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &vec![0; data]].concat()
    }

    #[test]
    fn names_that_come_twice_are_refused() {
        let tensor = |dtype: &str, shape: &str| {
            format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}"#)
        };
        let (floats, halves) = (tensor("F32", "[2]"), tensor("F16", "[4]"));
        for (header, name) in [
            (format!(r#"{{"a":{floats},"a":{halves}}}"#), Some("a")),
            (format!(r#"{{"a":{floats},"\u0061":{floats}}}"#), Some("a")),
            (
                format!(r#"{{"__metadata__":{{"x":"1","x":"2"}},"a":{floats}}}"#),
                Some("x"),
            ),
            (
                format!(r#"{{"__metadata__":{{"a":"1"}},"a":{floats}}}"#),
                None,
            ),
            (format!(r#"{{"__metadata__":null,"a":{floats}}}"#), None),
        ] {
            let found = match open(&file(&header, 8)) {
                Ok(_) => None,
                Err(LoraError::RepeatedName { name }) => Some(name),
                Err(other) => panic!("{header}: {other}"),
            };
            assert_eq!(found.as_deref(), name, "{header}");
        }
    }
}
