//! An adapter in memory, and its way from and to disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use selma_durable::atomic_write;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    Dtype, Format, LoraError, LoraModule,
    format::{self, ModuleNames},
};

/// A set of low-rank updates, one per module, whatever file format they came from.
///
/// ```
/// use ndarray::Array;
/// use selma_lora::{Adapter, LoraModule};
///
/// let module = LoraModule::new(
///     Array::ones((4, 320)).into_dyn(),
///     Array::zeros((320, 4)).into_dyn(),
///     4.0,
/// )?;
/// let name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
/// let adapter = Adapter::new([(name.to_owned(), module)]);
/// assert_eq!(adapter.parameters(), 4 * 320 * 2);
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    /// The updates by diffusers path, component included, for example
    /// `unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q` or
    /// `text_encoder.text_model.encoder.layers.0.self_attn.q_proj`.
    pub modules: BTreeMap<String, LoraModule>,
    /// Free-form notes that travel with the file (`ss_*`, `modelspec.*`, a merge's recipe).
    /// What describes ranks and alphas is not here but in the modules.
    pub metadata: BTreeMap<String, String>,
    /// The file this was read from; `None` for an adapter made in memory.
    pub source: Option<Source>,
}

/// The file an adapter was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the whole file, as `sha256sum` prints it.
    pub sha256: String,
    /// The naming scheme found.
    pub format: Format,
    /// The number types of its factors.
    pub dtypes: BTreeSet<Dtype>,
}

impl Adapter {
    /// An adapter made in memory, without metadata.
    #[must_use]
    pub fn new(modules: impl IntoIterator<Item = (String, LoraModule)>) -> Self {
        Self {
            modules: modules.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Reads a safetensors file in any supported format; see [`Format`].
    ///
    /// The underscored names of kohya files are resolved by the fixed grammar of diffusers' Stable
    /// Diffusion modules; for other models use [`load_with`](Self::load_with).
    ///
    /// # Errors
    /// [`LoraError::Io`] when the file cannot be read; [`LoraError::InFile`] around what is wrong
    /// with its content: not a safetensors file, a key of no known scheme, a kind of adapter that
    /// is not a plain LoRA, half a pair, shapes that do not fit, values that are not finite.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        Self::load_from(path.as_ref(), None)
    }

    /// Reads a file like [`load`](Self::load), resolving kohya names by the modules of a model.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(path: impl AsRef<Path>, names: &ModuleNames) -> Result<Self, LoraError> {
        Self::load_from(path.as_ref(), Some(names))
    }

    fn load_from(path: &Path, names: Option<&ModuleNames>) -> Result<Self, LoraError> {
        let bytes = std::fs::read(path).map_err(|source| LoraError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let mut adapter = Self::from_bytes(&bytes, names).map_err(|error| error.in_file(path))?;
        if let Some(source) = &mut adapter.source {
            source.path = path.to_path_buf();
        }
        Ok(adapter)
    }

    /// Reads the bytes of a safetensors file. [`Source::path`] of the result is empty.
    ///
    /// # Errors
    /// What [`load`](Self::load) wraps in [`LoraError::InFile`].
    pub fn from_bytes(bytes: &[u8], names: Option<&ModuleNames>) -> Result<Self, LoraError> {
        let content = format::read(bytes, names)?;
        Ok(Self {
            modules: content.modules,
            metadata: content.metadata,
            source: Some(Source {
                path: PathBuf::new(),
                sha256: hex::encode(Sha256::digest(bytes)),
                format: content.format,
                dtypes: content.dtypes,
            }),
        })
    }

    /// The bytes of a safetensors file: the same adapter gives the same bytes on every run.
    ///
    /// Kohya files carry each module's alpha. The diffusers formats have no place for it that every
    /// reader honours, so there a scale other than 1 is multiplied into the factors (half into
    /// each) and alpha becomes the rank; `dW` stays the same up to rounding.
    ///
    /// # Errors
    /// [`LoraError::InModule`] for factors that do not fit each other, [`LoraError::NonFinite`],
    /// [`LoraError::Overflow`] for a value too large for `dtype`, [`LoraError::UnknownComponent`]
    /// and [`LoraError::AmbiguousName`] for a path that the format cannot express,
    /// [`LoraError::Empty`] for an adapter without modules.
    pub fn to_bytes(&self, format: Format, dtype: Dtype) -> Result<Vec<u8>, LoraError> {
        format::write(self, format, dtype)
    }

    /// Writes [`to_bytes`](Self::to_bytes) to a file: through a temporary file in the same folder
    /// that is synced and renamed, so that the file is never half-written.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes), wrapped in [`LoraError::InFile`]; [`LoraError::Durable`] when
    /// the file cannot be written.
    pub fn save(
        &self,
        path: impl AsRef<Path>,
        format: Format,
        dtype: Dtype,
    ) -> Result<(), LoraError> {
        let path = path.as_ref();
        let bytes = self
            .to_bytes(format, dtype)
            .map_err(|error| error.in_file(path))?;
        Ok(atomic_write(path, &bytes)?)
    }

    /// SHA-256 of the content alone: paths, shapes, alphas and values of all modules, whatever file
    /// they came from. [`Source::sha256`] is that of a whole file.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (path, module) in &self.modules {
            // Lengths keep two different adapters from being the same stream of bytes.
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path.as_bytes());
            hash.update(module.alpha.to_le_bytes());
            for factor in [&module.a, &module.b] {
                hash.update((factor.ndim() as u64).to_le_bytes());
                for &length in factor.shape() {
                    hash.update((length as u64).to_le_bytes());
                }
                for value in factor {
                    hash.update(value.to_le_bytes());
                }
            }
        }
        hex::encode(hash.finalize())
    }

    /// Numbers stored in all factors.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.modules.values().map(LoraModule::parameters).sum()
    }
}
