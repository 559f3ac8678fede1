//! A weight file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::WeightsError;
use super::mapped::MappedFile;
use super::tensor::StoredTensor;
use super::{safetensors, sharded, torch};
use crate::DiffusionError;

/// The number types of weight files that hold floating-point values.
pub use ::safetensors::Dtype;

/// Named tensors of one or several files: names, shapes and places, nothing read before it is asked for.
#[derive(Debug, Clone)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
    integers: BTreeMap<String, i64>,
}

impl Weights {
    /// Opens a weight file and reads what is in it, but not the values.
    ///
    /// A file is taken for what its first bytes say: safetensors, or a checkpoint of PyTorch (`.bin`, `.ckpt`, `.pt`),
    /// of which nothing is executed. The name of an index ends with `.json`; it gives the tensors of all its shards.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is damaged or truncated, or of another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        let path = path.as_ref().to_owned();
        if path.extension().is_some_and(|ending| ending == "json") {
            let tensors = sharded::read(&path)?;
            return Ok(Self::of(path, tensors));
        }
        let file = Arc::new(MappedFile::open(&path)?);
        if torch::is_torch(file.bytes()) {
            let state = torch::read(&file)?;
            return Ok(Self {
                path,
                tensors: state.tensors,
                integers: state.integers,
            });
        }
        if let Some(found) = other_format(file.bytes()) {
            return Err(WeightsError::Format { path, found }.into());
        }
        let tensors = safetensors::read(&file)?;
        Ok(Self::of(path, tensors))
    }

    /// Tensors by names of their own.
    pub(crate) fn of(path: PathBuf, tensors: BTreeMap<String, StoredTensor>) -> Self {
        Self {
            path,
            tensors,
            integers: BTreeMap::new(),
        }
    }

    /// The file, or the index of the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(StoredTensor::shape)
    }

    /// Number type of a tensor.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(StoredTensor::dtype)
    }

    /// Values of a floating-point tensor, widened to `f32`; `None` if there is no such tensor or it is not of
    /// `F16`, `BF16`, `F32` or `F64`.
    #[must_use]
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.tensors.get(name)?.floats()
    }

    /// Values of an `I32` or `I64` tensor; `None` if there is no such tensor, or a value does not fit `i32`.
    #[must_use]
    pub fn integers(&self, name: &str) -> Option<Vec<i32>> {
        self.tensors.get(name)?.integers()
    }

    /// Values and shape of a floating-point tensor that must be there.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or it does not hold floating-point values.
    pub fn require(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), DiffusionError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(DiffusionError::NoTensor {
                path: self.path.clone(),
                key: name.to_owned(),
                found: self.names().take(8).collect::<Vec<_>>().join(", "),
            });
        };
        let values = tensor.floats().ok_or_else(|| DiffusionError::Tensor {
            path: self.path.clone(),
            key: name.to_owned(),
            expected: "a floating-point tensor".to_owned(),
            found: format!("{:?}", tensor.dtype()),
        })?;
        Ok((values, tensor.shape().to_vec()))
    }

    /// An integer that a training checkpoint holds beside its `state_dict`, such as `global_step`.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.integers.get(name).copied()
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    pub(crate) fn into_tensors(self) -> BTreeMap<String, StoredTensor> {
        self.tensors
    }
}

/// What a file that people take for weights can be, if its first bytes say so.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const TAR: usize = 257;
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(b"version https://git-lfs.github.com/spec") {
        Some("a pointer of Git LFS: the file itself was not downloaded")
    } else if starts(b"GGUF") {
        Some("GGUF")
    } else if starts(b"\x89HDF\r\n\x1a\n") {
        Some("HDF5")
    } else if starts(b"<!DOCTYPE") || starts(b"<html") {
        Some("a web page")
    } else if starts(b"\x80")
        && bytes.get(1).is_some_and(|&protocol| protocol <= 5)
        && bytes.get(8) != Some(&b'{')
    {
        Some("a pickle that PyTorch did not write")
    } else if bytes.get(TAR..TAR + 5) == Some(b"ustar") {
        Some("a tar archive, perhaps PyTorch's format before 0.1.10")
    } else {
        None
    }
}
