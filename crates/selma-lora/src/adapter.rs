//! An adapter in memory, and its way from and to disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use selma_durable::atomic_write;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    Dtype, Format, LoraError, LoraModule, Update,
    format::{self, Content, Kinds, ModuleNames},
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
    /// What describes ranks and alphas is not here but in the modules. Hashes of a file's values (`sshs_model_hash`,
    /// `sshs_legacy_hash`, `modelspec.hash_sha256`) are not written, as they would be those of another file.
    pub metadata: BTreeMap<String, String>,
    /// The file this was read from; `None` for an adapter made in memory.
    pub source: Option<Source>,
}

/// The file an adapter was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where it lies: a file, or a folder of PEFT.
    pub path: PathBuf,
    /// SHA-256 of the whole file, as `sha256sum` prints it; for a folder, of `adapter_config.json`
    /// followed by `adapter_model.safetensors` (and so on for `text_encoder` and `text_encoder_2`).
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

    /// Reads a safetensors file or a folder written by PEFT, in any supported format; see [`Format`].
    ///
    /// The underscored names of kohya files are resolved by the fixed grammar of diffusers' Stable
    /// Diffusion modules; for other models use [`load_with`](Self::load_with). A folder is one with
    /// `adapter_config.json` and `adapter_model.safetensors`, or with such folders called `unet`,
    /// `text_encoder` and `text_encoder_2`; the path of an `adapter_model.safetensors` stands for its
    /// folder. Of a folder without a configuration `pytorch_lora_weights.safetensors` is read, or the only
    /// safetensors file that there is. A convolution decomposed into three (`lora_mid`) is put together to two factors.
    ///
    /// # Errors
    /// [`LoraError::Io`] when a file cannot be read, [`LoraError::PeftFolder`] for a folder that is
    /// none of PEFT's and has no file that is meant; [`LoraError::InFile`] around what is wrong with the content: not a safetensors
    /// file ([`LoraError::TorchFile`] for one of PyTorch), a key of no known scheme, an update of another kind
    /// ([`LoraError::OtherKind`]; see [`AdapterFile`](crate::AdapterFile) for those), half a pair, shapes that do not fit, values
    /// that are not finite.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        Self::from_content(format::load(path.as_ref(), None, Kinds::Lora)?)
    }

    /// Reads like [`load`](Self::load), resolving names by the modules of a model.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(path: impl AsRef<Path>, names: &ModuleNames) -> Result<Self, LoraError> {
        Self::from_content(format::load(path.as_ref(), Some(names), Kinds::Lora)?)
    }

    /// Reads the bytes of a safetensors file. [`Source::path`] of the result is empty.
    ///
    /// # Errors
    /// What [`load`](Self::load) wraps in [`LoraError::InFile`].
    pub fn from_bytes(bytes: &[u8], names: Option<&ModuleNames>) -> Result<Self, LoraError> {
        Self::from_content(format::from_bytes(bytes, names, Kinds::Lora)?)
    }

    fn from_content(content: Content) -> Result<Self, LoraError> {
        let modules = content.updates.into_iter().map(|(path, update)| {
            let kind = update.kind();
            match update {
                Update::Lora(module) => Ok((path, module)),
                // The reader has refused these by the name of their tensor.
                _ => Err(LoraError::OtherKind { key: path, kind }),
            }
        });
        Ok(Self {
            modules: modules.collect::<Result<_, LoraError>>()?,
            metadata: content.metadata,
            source: Some(content.source),
        })
    }

    /// The bytes of a safetensors file: the same adapter gives the same bytes on every run.
    ///
    /// Kohya files carry each module's alpha. The diffusers formats have no place for it that every
    /// reader honours, so there a scale other than 1 is multiplied into the factors (half into
    /// each) and alpha becomes the rank; `dW` stays the same up to rounding. The same holds for
    /// [`Format::Peft`], whose bytes are those of an `adapter_model.safetensors` that can do without a
    /// configuration; [`save`](Self::save) writes the whole folder, with every alpha.
    ///
    /// # Errors
    /// [`LoraError::InModule`] for factors that do not fit each other, [`LoraError::NonFinite`],
    /// [`LoraError::Overflow`] for a value too large for `dtype`, [`LoraError::UnknownComponent`]
    /// and [`LoraError::AmbiguousName`] for a path that the format cannot express,
    /// [`LoraError::Empty`] for an adapter without modules, [`LoraError::ManyComponents`] for
    /// [`Format::Peft`] and modules of more than one component, which have a folder each.
    pub fn to_bytes(&self, format: Format, dtype: Dtype) -> Result<Vec<u8>, LoraError> {
        format::write(self, format, dtype)
    }

    /// Writes [`to_bytes`](Self::to_bytes) to a file: through a temporary file in the same folder
    /// that is synced and renamed, so that the file is never half-written.
    ///
    /// For [`Format::Peft`] `path` is a folder, made if need be, that PEFT loads:
    /// `adapter_model.safetensors` and `adapter_config.json` in it, or in a folder for each component
    /// (`unet`, `text_encoder`..) when there are several or the names of modules alone do not tell
    /// the component. The configuration is written last, and an older one is removed first,
    /// so that weights never stand beside a configuration that is not theirs.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes), wrapped in [`LoraError::InFile`]; [`LoraError::Durable`] when
    /// a file cannot be written; [`LoraError::PeftFolder`] for a folder whose older files would be
    /// read together with the new ones.
    pub fn save(
        &self,
        path: impl AsRef<Path>,
        format: Format,
        dtype: Dtype,
    ) -> Result<(), LoraError> {
        let path = path.as_ref();
        if format == Format::Peft {
            return format::save(self, path, dtype);
        }
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

    /// SHA-256 of the file this was read from, of the content if it was made in memory: what recipes
    /// record of their inputs.
    pub(crate) fn origin_sha256(&self) -> String {
        match &self.source {
            Some(source) => source.sha256.clone(),
            None => self.sha256(),
        }
    }

    /// Numbers stored in all factors.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.modules.values().map(LoraModule::parameters).sum()
    }
}
