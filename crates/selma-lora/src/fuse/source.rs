//! The file that is read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use safetensors::{
    SafeTensorError,
    tensor::{Metadata, TensorInfo},
};

use super::Place;
use crate::LoraError;

/// Headers are no longer than this in any file that the reference reader takes.
const LONGEST_HEADER: u64 = 100_000_000;

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
        let unreadable = unreadable(path);
        let mut file = File::open(path).map_err(&unreadable)?;
        let len = file.metadata().map_err(&unreadable)?.len();
        let header = header(&mut file, len).map_err(&unreadable)?;
        let header = header.map_err(|error| LoraError::NotSafetensors { error }.in_file(path))?;
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

/// Reads and checks the header as the reference reader does, without the values.
fn header(file: &mut File, len: u64) -> io::Result<Result<Metadata, SafeTensorError>> {
    let mut prefix = [0; 8];
    if len < 8 {
        return Ok(Err(SafeTensorError::HeaderTooSmall));
    }
    file.read_exact(&mut prefix)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > LONGEST_HEADER {
        return Ok(Err(SafeTensorError::HeaderTooLarge));
    }
    if header_len > len - 8 {
        return Ok(Err(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = Vec::new();
    file.take(header_len).read_to_end(&mut header)?;
    // Checks the offsets against each other, the shapes and the number types.
    let parsed: Metadata = match serde_json::from_slice(&header) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(SafeTensorError::InvalidHeaderDeserialization(error))),
    };
    if 8 + header_len + parsed.data_len() as u64 != len {
        return Ok(Err(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok(Ok(parsed))
}

pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> LoraError + '_ {
    |source| LoraError::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    }
}
