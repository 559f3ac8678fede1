//! Writing safetensors files whose bytes depend on nothing but their content.
//!
//! The `safetensors` crate keeps metadata in a hash map, so the order of its keys, and with it the
//! bytes of the file, change from run to run. Here everything is sorted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Dtype;

/// A tensor ready to be written.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Little-endian numbers in row-major order.
    pub(super) bytes: Vec<u8>,
}

/// Lays out a whole file: header length, JSON header padded to 8 bytes, tensors sorted by the size
/// of their numbers (largest first, which keeps them aligned) and then by name.
pub(super) fn serialize(mut tensors: Vec<Tensor>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    tensors.sort_by(|x, y| (y.dtype.size(), &x.name).cmp(&(x.dtype.size(), &y.name)));
    let mut end = 0;
    let entries = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes.len();
        let mut entry = Map::new();
        entry.insert("dtype".to_owned(), json!(tensor.dtype.header_name()));
        entry.insert("shape".to_owned(), json!(tensor.shape));
        entry.insert("data_offsets".to_owned(), json!([start, end]));
        (tensor.name.clone(), Value::Object(entry))
    });
    let mut file = header(entries, metadata);
    file.reserve_exact(end);
    for tensor in &tensors {
        file.extend(&tensor.bytes);
    }
    file
}

/// The length of a header, and the header itself, padded to 8 bytes: what stands before the values. An entry is a tensor's
/// name with its `dtype`, `shape` and `data_offsets`.
pub(crate) fn header(
    entries: impl IntoIterator<Item = (String, Value)>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    header.extend(entries);
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor {
        let numbers: usize = shape.iter().product();
        let values: Vec<f32> = (0..numbers).map(|i| i as f32).collect();
        let bytes = dtype.encode(&values).unwrap();
        Tensor {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
    }

    #[test]
    fn the_reference_reader_agrees() {
        let metadata = BTreeMap::from([
            ("b".to_owned(), "2".to_owned()),
            ("a".into(), "1\n\"".into()),
        ]);
        let tensors = || {
            vec![
                tensor("y", Dtype::F16, &[3]),
                tensor("z", Dtype::F32, &[]),
                tensor("x", Dtype::F16, &[1, 2]),
            ]
        };
        let bytes = serialize(tensors(), &metadata);
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("z").unwrap().shape(), [0_usize; 0]);
        assert_eq!(read.tensor("y").unwrap().data(), tensors()[0].bytes);
        assert_eq!(read.tensor("x").unwrap().shape(), [1, 2]);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["a"], "1\n\"");

        let mut turned = tensors();
        turned.reverse();
        assert_eq!(bytes, serialize(turned, &metadata));
    }
}
