//! Adapter files that are read module by module.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    Format, LoraError, LoraModule, ModuleNames,
    format::{self, LazyFile},
};

/// An adapter on disk: the header of its file is in memory, a module is read when it is asked for.
///
/// It reads what [`Adapter::load`](crate::Adapter::load) reads, and any number of threads may do so at once.
/// The file is kept open, and must not be written to meanwhile; one that is replaced by another, as
/// [`Adapter::save`](crate::Adapter::save) does it, stays as it was.
///
/// ```
/// use selma_lora::{Adapter, AdapterReader, Dtype, Format, init};
///
/// # let folder = tempfile::tempdir().expect("a temporary folder");
/// # let file = folder.path().join("adapter.safetensors");
/// let module = init::gaussian("unet.conv_in", &[320, 4, 3, 3], 8, 8.0, 42)?;
/// Adapter::new([("unet.conv_in".to_owned(), module.clone())]).save(&file, Format::Kohya, Dtype::F32)?;
/// let adapter = AdapterReader::open(&file)?;
/// assert_eq!(adapter.paths().collect::<Vec<_>>(), ["unet.conv_in"]);
/// assert_eq!(adapter.module("unet.conv_in")?, Some(module));
/// assert_eq!(adapter.module("unet.conv_out")?, None);
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
#[derive(Debug)]
pub struct AdapterReader {
    path: PathBuf,
    names: Option<ModuleNames>,
    files: Vec<LazyFile>,
    paths: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
}

impl AdapterReader {
    /// Opens a safetensors file or a folder written by PEFT; see [`Adapter::load`](crate::Adapter::load).
    ///
    /// # Errors
    /// As [`Adapter::load`](crate::Adapter::load), as far as the header tells; the errors of a module come when it is read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        Self::opened(path.as_ref(), None)
    }

    /// Opens like [`open`](Self::open), resolving names by the modules of a model.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, names: &ModuleNames) -> Result<Self, LoraError> {
        Self::opened(path.as_ref(), Some(names.clone()))
    }

    /// Opens several like [`open`](Self::open), on all threads.
    ///
    /// # Errors
    /// As [`open`](Self::open), of the first that cannot be opened.
    pub fn open_all(
        paths: impl IntoIterator<Item: AsRef<Path> + Send>,
    ) -> Result<Vec<Self>, LoraError> {
        let paths: Vec<_> = paths.into_iter().collect();
        let opened: Vec<_> = paths.into_par_iter().map(Self::open).collect();
        opened.into_iter().collect()
    }

    fn opened(path: &Path, names: Option<ModuleNames>) -> Result<Self, LoraError> {
        let files = format::open_lazy(path, names.as_ref())?;
        let paths = files.iter().flat_map(LazyFile::paths).cloned().collect();
        let notes = files.iter().flat_map(|file| file.metadata().clone());
        let metadata = notes.collect();
        Ok(Self {
            path: path.to_path_buf(),
            names,
            files,
            paths,
            metadata,
        })
    }

    /// Where it lies: a file, or a folder of PEFT.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The naming scheme found.
    #[must_use]
    pub fn format(&self) -> Format {
        self.files.first().map_or(Format::Peft, LazyFile::format)
    }

    /// The notes in the metadata of its files.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The diffusers paths of all modules, component included, in order.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.paths.iter()
    }

    /// Reads one module; `None` when the adapter lacks it.
    ///
    /// # Errors
    /// What is wrong with the module's tensors, in [`LoraError::InFile`]; see
    /// [`Adapter::load`](crate::Adapter::load).
    pub fn module(&self, path: &str) -> Result<Option<LoraModule>, LoraError> {
        for file in &self.files {
            if let Some(module) = file.module(path, self.names.as_ref())? {
                return Ok(Some(module));
            }
        }
        Ok(None)
    }

    /// The shapes of `A` and `B` as they are stored.
    pub(crate) fn shapes(&self, path: &str) -> Option<(&[usize], &[usize])> {
        self.files.iter().find_map(|file| file.shapes(path))
    }

    /// SHA-256 as [`Source::sha256`](crate::Source::sha256) has it. Reads all of the file, a piece at a time.
    ///
    /// # Errors
    /// [`LoraError::Io`].
    pub fn sha256(&self) -> Result<String, LoraError> {
        let mut hash = Sha256::new();
        for file in &self.files {
            file.hash(&mut hash)?;
        }
        Ok(hex::encode(hash.finalize()))
    }
}
