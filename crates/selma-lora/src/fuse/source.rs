//! The file that is read.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use safetensors::tensor::TensorInfo;

use super::Place;
use crate::{LoraError, format::read_header};

/// A safetensors file of which the header is read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Stands behind the header, where the values begin.
    pub(super) file: File,
    /// Free-form notes.
    pub(super) metadata: BTreeMap<String, String>,
    /// In the order in which their values lie.
    pub(super) tensors: Vec<Stored>,
}

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    pub(super) places: Vec<Place>,
}

impl Stored {
    /// Bytes of its values.
    pub(super) fn len(&self) -> u64 {
        let (start, end) = self.info.data_offsets;
        (end - start) as u64
    }
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    /// [`LoraError::Io`]; around the file: [`LoraError::NotSafetensors`].
    pub(super) fn open<P: IntoIterator<Item = Place>>(
        path: &Path,
        places: impl Fn(&str) -> P,
    ) -> Result<Self, LoraError> {
        let file = File::open(path).map_err(LoraError::unreadable(path))?;
        let (_, header) = read_header(&file, path).map_err(|error| error.in_file(path))?;
        let mut tensors: Vec<Stored> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| Stored {
                places: places(&name).into_iter().collect(),
                info: info.clone(),
                name,
            })
            .collect();
        tensors.sort_by(|x, y| {
            let key = |tensor: &Stored| tensor.info.data_offsets;
            (key(x), &x.name).cmp(&(key(y), &y.name))
        });
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata: metadata.into_iter().collect(),
            tensors,
        })
    }
}
