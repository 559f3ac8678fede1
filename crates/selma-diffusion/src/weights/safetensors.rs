//! The safetensors format.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::SafeTensors;

use super::mapped::MappedFile;
use super::tensor::StoredTensor;
use crate::DiffusionError;

/// The tensors of a safetensors file.
///
/// # Errors
///
/// If the file is damaged or truncated.
pub(super) fn read(
    file: &Arc<MappedFile>,
) -> Result<BTreeMap<String, StoredTensor>, DiffusionError> {
    let bytes = file.bytes();
    let parsed = SafeTensors::deserialize(bytes).map_err(|source| DiffusionError::Weights {
        path: file.path().to_owned(),
        source,
    })?;
    let start = bytes.as_ptr() as usize;
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.iter() {
        let offset = view.data().as_ptr() as usize - start;
        let shape = view.shape().to_vec();
        let tensor = StoredTensor::contiguous(file.clone(), view.dtype(), offset, shape);
        // Numbers of less than a byte stay out: no model here has them, and strict loading says that they are missing.
        if let Some(tensor) = tensor {
            tensors.insert(name.to_owned(), tensor);
        }
    }
    Ok(tensors)
}
