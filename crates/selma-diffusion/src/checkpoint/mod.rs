//! Stable Diffusion on disk: diffusers' folder layout, or a single file in the original layout.

mod changes;
mod names;
mod options;
mod other_vae;
mod stored;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use selma_durable::sha256;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::DiffusionError;
use crate::config::{ConfigError, read_json};
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, UNet2DConditionModel,
    UNet2DConditionModelConfig,
};
use crate::presets::{Family, Preset, SECOND_PAD_TOKEN};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::single_file::{SingleFile, SinglePart};
use crate::tokenizer::ClipTokenizer;
use crate::weights::{self, Fit, WeightFile, Weights, compare, load};

pub use changes::Difference;
pub use options::{CheckpointOptions, ConfigSource};
pub use stored::{Component, Stored};

use names::{is_constant, text_names, vae_names};

/// Pipelines with one text encoder.
const STABLE_DIFFUSION: &str = "StableDiffusionPipeline";
/// Pipelines with two.
const STABLE_DIFFUSION_XL: &str = "StableDiffusionXLPipeline";
/// The scheduler's configuration in the folder of a pipeline.
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// A Stable Diffusion on disk, of which nothing large is read before it is asked for.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    options: CheckpointOptions,
    layout: Layout,
    xl: bool,
    force_zeros_for_empty_prompt: bool,
}

#[derive(Debug, Clone)]
enum Layout {
    /// As `save_pretrained` of `StableDiffusionPipeline` or `StableDiffusionXLPipeline` writes it: `model_index.json`, and
    /// one folder a component.
    Folder,
    /// The original layout.
    SingleFile(Box<SingleFile>),
}

impl Checkpoint {
    /// Opens a folder in diffusers' layout, or a file in the original layout.
    ///
    /// # Errors
    ///
    /// If the folder has no `model_index.json` or that describes another kind of pipeline, or if the file cannot be read
    /// or holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        Self::open_with(path, CheckpointOptions::default())
    }

    /// Opens a folder or a file, and reads from elsewhere what the options say.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        options: CheckpointOptions,
    ) -> Result<Self, DiffusionError> {
        let path = path.as_ref().to_owned();
        let (layout, xl, zeros) = if path.is_file() {
            let config: Option<ClipTextConfig> = match &options.config {
                Some(source) => {
                    source.config("text_encoder", |preset| Some(preset.text_encoder()))?
                }
                None => None,
            };
            let layers = config.map(|config| config.num_hidden_layers);
            let single = SingleFile::new(&Weights::open(&path)?, layers)?;
            let xl = single.family() == Family::Sdxl;
            (Layout::SingleFile(Box::new(single)), xl, xl)
        } else {
            let (xl, zeros) = read_index(&path)?;
            (Layout::Folder, xl, zeros)
        };
        Ok(Self {
            path,
            options,
            layout,
            xl,
            force_zeros_for_empty_prompt: zeros,
        })
    }

    /// Whether this is SDXL: there are two tokenizers and text encoders.
    #[must_use]
    pub fn is_xl(&self) -> bool {
        self.xl
    }

    /// The number type that the networks are loaded in.
    #[must_use]
    pub fn dtype(&self) -> FloatDType {
        self.options.dtype.unwrap_or(FloatDType::F32)
    }

    /// Whether zeros stand for a negative prompt that is not given (SDXL), rather than the empty text.
    #[must_use]
    pub fn force_zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt
    }

    /// The folder or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The single file, if it is one.
    #[must_use]
    pub fn single_file(&self) -> Option<&SingleFile> {
        match &self.layout {
            Layout::Folder => None,
            Layout::SingleFile(single) => Some(single),
        }
    }

    /// The tokenizer: that of the options, of the folder `tokenizer`, or the standard one for a single file.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged, or it has more tokens than the text encoder of a single file knows.
    pub fn tokenizer(&self) -> Result<ClipTokenizer, DiffusionError> {
        let pad = |single: &SingleFile| single.family().pad_token();
        self.read_tokenizer("tokenizer", pad)
    }

    /// The second tokenizer of SDXL; see [`tokenizer`](Self::tokenizer).
    ///
    /// # Errors
    ///
    /// Those of [`tokenizer`](Self::tokenizer).
    pub fn tokenizer_2(&self) -> Result<ClipTokenizer, DiffusionError> {
        self.read_tokenizer("tokenizer_2", |_| SECOND_PAD_TOKEN)
    }

    fn read_tokenizer(
        &self,
        name: &str,
        pad: impl Fn(&SingleFile) -> &'static str,
    ) -> Result<ClipTokenizer, DiffusionError> {
        let tokenizer = match (self.tokenizer_folder(name), &self.layout) {
            (Some(folder), _) => ClipTokenizer::load(&folder)?,
            (None, Layout::Folder) => ClipTokenizer::load(&self.path.join(name))?,
            (None, Layout::SingleFile(single)) => ClipTokenizer::standard(pad(single))?,
        };
        if let Layout::SingleFile(single) = &self.layout {
            let known = single.text_encoder().config.vocab_size;
            if tokenizer.vocab_size() > known {
                return Err(DiffusionError::Request {
                    what: "tokens of the tokenizer",
                    expected: format!("at most the {known} of the text encoder"),
                    found: tokenizer.vocab_size().to_string(),
                });
            }
        }
        Ok(tokenizer)
    }

    /// The folder of a tokenizer that the options name.
    fn tokenizer_folder(&self, name: &str) -> Option<PathBuf> {
        if let Some(folder) = &self.options.tokenizer {
            let inner = folder.join(name);
            return Some(if inner.is_dir() {
                inner
            } else {
                folder.clone()
            });
        }
        match &self.options.config {
            Some(ConfigSource::Folder(folder)) => {
                Some(folder.join(name)).filter(|inner| inner.is_dir())
            }
            _ => None,
        }
    }

    /// The scheduler that the checkpoint names, or its family's, with its configuration.
    ///
    /// # Errors
    ///
    /// If `scheduler/scheduler_config.json` is missing or damaged, or names a scheduler that is not implemented.
    pub fn scheduler(&self) -> Result<(SchedulerKind, SchedulerConfig), DiffusionError> {
        let config = match (&self.options.config, &self.layout) {
            (Some(ConfigSource::Preset(preset)), _) => preset.scheduler(),
            (Some(ConfigSource::Folder(folder)), _) if folder.join(SCHEDULER).is_file() => {
                SchedulerConfig::load(&folder.join(SCHEDULER))?
            }
            (_, Layout::Folder) => SchedulerConfig::load(&self.path.join(SCHEDULER))?,
            (_, Layout::SingleFile(single)) => single.scheduler().clone(),
        };
        Ok((config.kind()?, config))
    }

    /// The text encoder.
    ///
    /// Files with and without the level `text_model.` are read; both are in use.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn text_encoder(
        &self,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        clip(self.stored_text_encoder()?, self.dtype(), device)
    }

    /// The second text encoder of SDXL: the one whose pooled output is used.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn text_encoder_2(
        &self,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        clip(self.stored_text_encoder_2()?, self.dtype(), device)
    }

    /// The denoising network.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn unet(
        &self,
        device: &Device,
    ) -> Result<Component<UNet2DConditionModelConfig, UNet2DConditionModel>, DiffusionError> {
        let stored = self.stored_unet()?;
        let model = stored.model(|config| config.init(device))?;
        Ok(Component {
            model: load(model, &stored.weights, self.dtype(), str::to_owned, |_| {
                false
            })?,
            config: stored.config,
        })
    }

    /// The VAE.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn vae(
        &self,
        device: &Device,
    ) -> Result<Component<AutoencoderKLConfig, AutoencoderKL>, DiffusionError> {
        let stored = self.stored_vae()?;
        let model = stored.model(|config| config.init(device))?;
        Ok(Component {
            model: load(
                model,
                &stored.weights,
                vae_dtype(self.dtype(), self.xl, &stored.config),
                vae_names(&stored.weights),
                |_| false,
            )?,
            config: stored.config,
        })
    }

    /// The text encoder's configuration and tensors.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_text_encoder(&self) -> Result<Stored<ClipTextConfig>, DiffusionError> {
        let part = |single: &SingleFile| Some(single.text_encoder().clone());
        let published = |preset: Preset| Some(preset.text_encoder());
        self.stored("text_encoder", published, part)
    }

    /// The second text encoder's configuration and tensors (SDXL).
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged, or there is no second one.
    pub fn stored_text_encoder_2(&self) -> Result<Stored<ClipTextConfig>, DiffusionError> {
        let part = |single: &SingleFile| single.text_encoder_2().cloned();
        self.stored("text_encoder_2", Preset::text_encoder_2, part)
    }

    /// The UNet's configuration and tensors.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_unet(&self) -> Result<Stored<UNet2DConditionModelConfig>, DiffusionError> {
        let part = |single: &SingleFile| Some(single.unet().clone());
        self.stored("unet", |preset| Some(preset.unet()), part)
    }

    /// The VAE's configuration and tensors: those of the options, or else the checkpoint's own.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_vae(&self) -> Result<Stored<AutoencoderKLConfig>, DiffusionError> {
        if let Some(path) = &self.options.vae {
            let preset = match (&self.options.config, self.single_file()) {
                (Some(ConfigSource::Preset(preset)), _) => *preset,
                (_, Some(single)) => single.preset(),
                (_, None) if self.xl => Preset::SdxlBase,
                (_, None) => Preset::Sd15,
            };
            let given = match &self.options.config {
                Some(source) => source.config("vae", |preset| Some(preset.vae()))?,
                None => None,
            };
            return other_vae::stored(path, given, preset);
        }
        let part = |single: &SingleFile| Some(single.vae().clone());
        self.stored("vae", |preset| Some(preset.vae()), part)
    }

    /// Compares each component's weights with its configuration, without reading a value.
    ///
    /// # Errors
    ///
    /// If files are missing or damaged, or a configuration cannot be used.
    pub fn fits(&self, device: &Device) -> Result<Vec<(&'static str, Fit)>, DiffusionError> {
        let text = |stored: Stored<ClipTextConfig>| {
            let model = stored.model(|config| config.init(device))?;
            let weights = &stored.weights;
            let names = text_names(weights);
            Ok::<_, DiffusionError>(compare(&model, weights, names, is_constant))
        };
        let mut fits = vec![("text_encoder", text(self.stored_text_encoder()?)?)];
        if self.xl {
            fits.push(("text_encoder_2", text(self.stored_text_encoder_2()?)?));
        }
        let unet = self.stored_unet()?;
        let model = unet.model(|config| config.init(device))?;
        let fit = compare(&model, &unet.weights, str::to_owned, |_| false);
        fits.push(("unet", fit));
        let vae = self.stored_vae()?;
        let model = vae.model(|config| config.init(device))?;
        let fit = compare(&model, &vae.weights, vae_names(&vae.weights), |_| false);
        fits.push(("vae", fit));
        Ok(fits)
    }

    fn stored<C: DeserializeOwned>(
        &self,
        name: &'static str,
        published: impl Fn(Preset) -> Option<C>,
        part: impl Fn(&SingleFile) -> Option<SinglePart<C>>,
    ) -> Result<Stored<C>, DiffusionError> {
        let given = match &self.options.config {
            Some(source) => source.config(name, published)?,
            None => None,
        };
        match &self.layout {
            Layout::Folder => {
                let config_path = self.path.join(name).join("config.json");
                Ok(Stored {
                    config: match given {
                        Some(config) => config,
                        None => read_json(&config_path)?,
                    },
                    weights: Weights::open(self.weight_file(name)?.path)?,
                    config_path,
                })
            }
            Layout::SingleFile(single) => {
                let Some(part) = part(single) else {
                    return Err(DiffusionError::Request {
                        what: "component",
                        expected: format!("one that {} has", single.family()),
                        found: name.to_owned(),
                    });
                };
                Ok(Stored {
                    config: given.unwrap_or(part.config),
                    weights: part.weights,
                    config_path: self.path.clone(),
                })
            }
        }
    }

    /// SHA-256 over the weight files of all components: what a picture owes its look to.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn sha256(&self) -> Result<String, DiffusionError> {
        let mut hash = Sha256::new();
        for path in self.weight_files()? {
            hash.update(sha256(&path)?);
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// SHA-256 over the weight files of the VAE that the options name, if they name one.
    ///
    /// # Errors
    ///
    /// If it has no files, or one cannot be read.
    pub fn other_vae_sha256(&self) -> Result<Option<String>, DiffusionError> {
        let Some(path) = &self.options.vae else {
            return Ok(None);
        };
        let mut hash = Sha256::new();
        for path in other_vae::files(path)? {
            hash.update(sha256(&path)?);
        }
        Ok(Some(hex::encode(hash.finalize())))
    }

    /// The weight files of all components, or the single file; a VAE that the options name comes last.
    ///
    /// # Errors
    ///
    /// If a component of a folder has none.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, DiffusionError> {
        let mut files = Vec::new();
        if self.single_file().is_some() {
            files.push(self.path.clone());
        } else {
            let mut names = vec!["text_encoder", "unet"];
            if self.options.vae.is_none() {
                names.push("vae");
            }
            if self.xl {
                names.push("text_encoder_2");
            }
            for name in names {
                files.extend(self.weight_file(name)?.files);
            }
        }
        if let Some(path) = &self.options.vae {
            files.extend(other_vae::files(path)?);
        }
        Ok(files)
    }

    fn weight_file(&self, name: &str) -> Result<WeightFile, DiffusionError> {
        weights::find(&self.path.join(name), self.options.variant.as_deref())
    }
}

fn clip(
    stored: Stored<ClipTextConfig>,
    dtype: FloatDType,
    device: &Device,
) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
    let model = stored.model(|config| config.init(device))?;
    let weights = &stored.weights;
    Ok(Component {
        model: load(model, weights, dtype, text_names(weights), is_constant)?,
        config: stored.config,
    })
}

/// The number type of the VAE where the other networks have `dtype`: that of SDXL overflows in `f16`, unless its configuration
/// says by `force_upcast` that it is the one that was made for it.
pub(crate) fn vae_dtype(dtype: FloatDType, xl: bool, config: &AutoencoderKLConfig) -> FloatDType {
    match dtype {
        FloatDType::F16 if xl && config.force_upcast => FloatDType::F32,
        _ => dtype,
    }
}

/// Checks that a folder is a Stable Diffusion pipeline: whether of SDXL, and whether zeros stand for a negative prompt
/// that is not given.
fn read_index(folder: &Path) -> Result<(bool, bool), ConfigError> {
    let index_path = folder.join("model_index.json");
    let index: Value = read_json(&index_path)?;
    let class = index.get("_class_name").and_then(Value::as_str);
    let xl = match class {
        Some(STABLE_DIFFUSION) => false,
        Some(STABLE_DIFFUSION_XL) => true,
        other => {
            let expected = format!("{STABLE_DIFFUSION} or {STABLE_DIFFUSION_XL}");
            let found = other.unwrap_or("nothing");
            return Err(ConfigError::invalid("_class_name", expected, found).in_file(&index_path));
        }
    };
    let zeros = index.get("force_zeros_for_empty_prompt");
    // True is diffusers' default.
    Ok((xl, xl && zeros.and_then(Value::as_bool).unwrap_or(true)))
}
