//! A memory-mapped safetensors file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;

use crate::DiffusionError;

/// The number types of weight files that hold floating-point values.
pub use safetensors::Dtype;

/// A weight file: names, shapes and bytes, nothing read before it is asked for.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset and length in the map.
    range: std::ops::Range<usize>,
}

impl Weights {
    /// Opens a safetensors file and reads its header.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is damaged or truncated.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        let path = path.as_ref().to_owned();
        let unreadable = |source| DiffusionError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        // SAFETY: the map is read-only and private to this value. A process that truncates the file while it is mapped
        // would make reads fault; weight files are replaced by rename, never rewritten in place.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        let damaged = |source| DiffusionError::Weights {
            path: path.clone(),
            source,
        };
        let parsed = SafeTensors::deserialize(&map).map_err(damaged)?;
        let start = map.as_ptr() as usize;
        let entries = parsed
            .iter()
            .map(|(name, view)| {
                let offset = view.data().as_ptr() as usize - start;
                let entry = Entry {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    range: offset..offset + view.data().len(),
                };
                (name.to_owned(), entry)
            })
            .collect();
        Ok(Self { path, map, entries })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Number type of a tensor.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// Values of a floating-point tensor, widened to `f32`; `None` if there is no such tensor or it is not of
    /// `F16`, `BF16`, `F32` or `F64`.
    #[must_use]
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let entry = self.entries.get(name)?;
        let bytes = self.map.get(entry.range.clone())?;
        let values = match entry.dtype {
            Dtype::F16 => words::<2>(bytes)
                .map(|word| f16::from_le_bytes(word).to_f32())
                .collect(),
            Dtype::BF16 => words::<2>(bytes)
                .map(|word| bf16::from_le_bytes(word).to_f32())
                .collect(),
            Dtype::F32 => words::<4>(bytes).map(f32::from_le_bytes).collect(),
            Dtype::F64 => words::<8>(bytes)
                .map(|word| f64::from_le_bytes(word) as f32)
                .collect(),
            _ => return None,
        };
        Some(values)
    }

    /// Values of an `I32` or `I64` tensor; `None` if there is no such tensor, or a value does not fit `i32`.
    #[must_use]
    pub fn integers(&self, name: &str) -> Option<Vec<i32>> {
        let entry = self.entries.get(name)?;
        let bytes = self.map.get(entry.range.clone())?;
        match entry.dtype {
            Dtype::I32 => Some(words::<4>(bytes).map(i32::from_le_bytes).collect()),
            Dtype::I64 => words::<8>(bytes)
                .map(|word| i32::try_from(i64::from_le_bytes(word)).ok())
                .collect(),
            _ => None,
        }
    }

    /// Values and shape of a floating-point tensor that must be there.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or it does not hold floating-point values.
    pub fn require(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), DiffusionError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(DiffusionError::NoTensor {
                path: self.path.clone(),
                key: name.to_owned(),
                found: self.names().take(8).collect::<Vec<_>>().join(", "),
            });
        };
        let values = self.floats(name).ok_or_else(|| DiffusionError::Tensor {
            path: self.path.clone(),
            key: name.to_owned(),
            expected: "a floating-point tensor".to_owned(),
            found: format!("{:?}", entry.dtype),
        })?;
        Ok((values, entry.shape.clone()))
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().copied()
}
