//! Opening safetensors files.

use std::{collections::BTreeSet, fmt};

use safetensors::{SafeTensorError, SafeTensors, tensor::Metadata};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::LoraError;

/// The tensors and the header of a safetensors file.
///
/// Of two tensors or two notes of one name the reader of the `safetensors` crate keeps the last, other
/// readers the first. Such a file has two meanings and is refused.
pub(crate) fn open(bytes: &[u8]) -> Result<(SafeTensors<'_>, Metadata), LoraError> {
    let unreadable = |error| LoraError::NotSafetensors { error };
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let json = bytes.get(8..).and_then(|rest| rest.get(..length));
    let names: Names = serde_json::from_slice(json.unwrap_or_default())
        .map_err(|error| unreadable(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    match names.repeated {
        Some(name) => Err(LoraError::RepeatedName { name }),
        None => Ok((file, header)),
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
