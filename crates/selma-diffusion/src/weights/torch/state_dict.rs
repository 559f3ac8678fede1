//! From what a pickle says to named tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::pickle::{Objects, Storage, Tensor, Value};
use crate::weights::WeightsError;
use crate::weights::mapped::MappedFile;
use crate::weights::tensor::StoredTensor;

/// The tensors of a checkpoint, and the integers beside them.
#[derive(Debug, Default)]
pub(in crate::weights) struct StateDict {
    pub(in crate::weights) tensors: BTreeMap<String, StoredTensor>,
    /// Such as `global_step` in a training checkpoint.
    pub(in crate::weights) integers: BTreeMap<String, i64>,
}

impl StateDict {
    /// Takes the dictionary under `state_dict` if there is one, as in a training checkpoint, or else the whole.
    ///
    /// `place` says at which byte of the file a storage begins.
    ///
    /// # Errors
    ///
    /// If there is no dictionary of tensors, or a tensor does not lie in its storage.
    pub(super) fn new(
        file: &Arc<MappedFile>,
        root: Value<'_>,
        objects: &Objects<'_>,
        place: impl Fn(&Storage<'_>) -> Result<usize, WeightsError>,
    ) -> Result<Self, WeightsError> {
        let path = file.path();
        let nested = objects.get(root, "state_dict");
        let Some(items) = objects.dict(nested.unwrap_or(root)) else {
            let found = objects.describe(nested.unwrap_or(root));
            return Err(WeightsError::Archive {
                path: path.to_owned(),
                what: "content".to_owned(),
                expected: "a dictionary of tensors",
                found,
            });
        };
        let mut state = Self::default();
        for &(key, value) in items {
            let Value::Str(name) = key else {
                return Err(not_a_tensor(
                    path,
                    &objects.describe(key),
                    "a key without a name",
                ));
            };
            let Some(tensor) = objects.tensor(value) else {
                return Err(not_a_tensor(path, name, &objects.describe(value)));
            };
            let stored = stored(file, name, tensor, place(&tensor.storage)?)?;
            state.tensors.insert(name.to_owned(), stored);
        }
        if nested.is_some() {
            for &(key, value) in objects.dict(root).unwrap_or_default() {
                if let (Value::Str(name), Value::Int(number)) = (key, value) {
                    state.integers.insert(name.to_owned(), number);
                }
            }
        }
        Ok(state)
    }
}

fn stored(
    file: &Arc<MappedFile>,
    name: &str,
    tensor: &Tensor<'_>,
    start: usize,
) -> Result<StoredTensor, WeightsError> {
    let storage = tensor.storage;
    let Some(dtype) = storage.dtype else {
        let found = "a tensor of an unknown number type";
        return Err(not_a_tensor(file.path(), name, found));
    };
    let element = dtype.bitsize() / 8;
    let place = || {
        let start = start.checked_add(tensor.offset.checked_mul(element)?)?;
        let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
        StoredTensor::strided(file.clone(), dtype, start, shape, strides)
    };
    let end = start.saturating_add(storage.len.saturating_mul(element));
    match place() {
        Some(stored) if stored.range().is_some_and(|range| range.end <= end) => Ok(stored),
        _ => {
            let found = format!(
                "shape {:?}, strides {:?} and offset {} beyond the {} numbers of its storage",
                tensor.shape, tensor.strides, tensor.offset, storage.len
            );
            Err(not_a_tensor(file.path(), name, &found))
        }
    }
}

fn not_a_tensor(path: &Path, key: &str, found: &str) -> WeightsError {
    WeightsError::NotATensor {
        path: path.to_owned(),
        key: key.to_owned(),
        found: found.to_owned(),
    }
}
