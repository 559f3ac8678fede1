//! Stable Diffusion in diffusers' folder layout.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::DiffusionError;
use crate::config::{ConfigError, read_json};
use crate::hash::sha256;
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, UNet2DConditionModel,
    UNet2DConditionModelConfig,
};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::tokenizer::ClipTokenizer;
use crate::weights::{Weights, load};

/// Pipelines with one text encoder.
const STABLE_DIFFUSION: &str = "StableDiffusionPipeline";
/// Pipelines with two.
const STABLE_DIFFUSION_XL: &str = "StableDiffusionXLPipeline";

/// A folder as `save_pretrained` of `StableDiffusionPipeline` or `StableDiffusionXLPipeline` writes it:
/// `model_index.json`, and one folder a component.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    dir: PathBuf,
    xl: bool,
    force_zeros_for_empty_prompt: bool,
}

/// A component in memory: its configuration and its network.
#[derive(Debug, Clone)]
pub struct Component<C, M> {
    /// What `config.json` says.
    pub config: C,
    /// The network.
    pub model: M,
}

impl Checkpoint {
    /// Opens a folder and checks that it is a Stable Diffusion pipeline, of SDXL or another.
    ///
    /// # Errors
    ///
    /// If there is no `model_index.json`, or it describes another kind of pipeline.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        let dir = dir.as_ref().to_owned();
        let index_path = dir.join("model_index.json");
        let index: Value = read_json(&index_path)?;
        let class = index.get("_class_name").and_then(Value::as_str);
        let xl = match class {
            Some(STABLE_DIFFUSION) => false,
            Some(STABLE_DIFFUSION_XL) => true,
            other => {
                let expected = format!("{STABLE_DIFFUSION} or {STABLE_DIFFUSION_XL}");
                let found = other.unwrap_or("nothing");
                return Err(ConfigError::invalid("_class_name", expected, found)
                    .in_file(&index_path)
                    .into());
            }
        };
        let zeros = index.get("force_zeros_for_empty_prompt");
        Ok(Self {
            dir,
            xl,
            // True is diffusers' default.
            force_zeros_for_empty_prompt: xl && zeros.and_then(Value::as_bool).unwrap_or(true),
        })
    }

    /// Whether this is SDXL: there are two tokenizers and text encoders.
    #[must_use]
    pub fn is_xl(&self) -> bool {
        self.xl
    }

    /// Whether zeros stand for a negative prompt that is not given (SDXL), rather than the empty text.
    #[must_use]
    pub fn force_zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tokenizer of the folder `tokenizer`.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn tokenizer(&self) -> Result<ClipTokenizer, DiffusionError> {
        Ok(ClipTokenizer::load(&self.dir.join("tokenizer"))?)
    }

    /// The tokenizer of the folder `tokenizer_2`, which SDXL has.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn tokenizer_2(&self) -> Result<ClipTokenizer, DiffusionError> {
        Ok(ClipTokenizer::load(&self.dir.join("tokenizer_2"))?)
    }

    /// The scheduler that the folder names, with its configuration.
    ///
    /// # Errors
    ///
    /// If `scheduler/scheduler_config.json` is missing or damaged, or names a scheduler that is not implemented.
    pub fn scheduler(&self) -> Result<(SchedulerKind, SchedulerConfig), DiffusionError> {
        let path = self.dir.join("scheduler").join("scheduler_config.json");
        let config = SchedulerConfig::load(&path)?;
        Ok((config.kind()?, config))
    }

    /// The text encoder of the folder `text_encoder`.
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
        self.clip("text_encoder", device)
    }

    /// The text encoder of the folder `text_encoder_2`, which SDXL has: the one whose pooled output is used.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn text_encoder_2(
        &self,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        self.clip("text_encoder_2", device)
    }

    fn clip(
        &self,
        folder: &str,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        let (config, weights) = self.component::<ClipTextConfig>(folder, "model")?;
        let model = config
            .1
            .init(device)
            .map_err(|error| error.in_file(&config.0))?;
        let prefixed = weights.names().any(|name| name.starts_with("text_model."));
        let rename = |path: &str| match path.strip_prefix("text_model.") {
            Some(short) if !prefixed => short.to_owned(),
            _ => path.to_owned(),
        };
        // A constant buffer 0, 1, 2, .. that old versions of transformers saved.
        let model = load(model, &weights, rename, |name| {
            name.ends_with("position_ids")
        })?;
        Ok(Component {
            config: config.1,
            model,
        })
    }

    /// The denoising network of the folder `unet`.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn unet(
        &self,
        device: &Device,
    ) -> Result<Component<UNet2DConditionModelConfig, UNet2DConditionModel>, DiffusionError> {
        let (config, weights) =
            self.component::<UNet2DConditionModelConfig>("unet", "diffusion_pytorch_model")?;
        let model = config
            .1
            .init(device)
            .map_err(|error| error.in_file(&config.0))?;
        let model = load(model, &weights, str::to_owned, |_| false)?;
        Ok(Component {
            config: config.1,
            model,
        })
    }

    /// The VAE of the folder `vae`.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn vae(
        &self,
        device: &Device,
    ) -> Result<Component<AutoencoderKLConfig, AutoencoderKL>, DiffusionError> {
        let (config, weights) =
            self.component::<AutoencoderKLConfig>("vae", "diffusion_pytorch_model")?;
        let model = config
            .1
            .init(device)
            .map_err(|error| error.in_file(&config.0))?;
        let old = weights
            .names()
            .any(|name| name.ends_with(".proj_attn.weight"));
        let rename = |path: &str| {
            if old {
                old_attention_name(path)
            } else {
                path.to_owned()
            }
        };
        let model = load(model, &weights, rename, |_| false)?;
        Ok(Component {
            config: config.1,
            model,
        })
    }

    /// SHA-256 over the weight files of all components: what a picture owes its look to.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn sha256(&self) -> Result<String, DiffusionError> {
        let mut hash = Sha256::new();
        let mut files = vec![
            ("text_encoder", "model"),
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
        ];
        if self.xl {
            files.push(("text_encoder_2", "model"));
        }
        for (folder, stem) in files {
            hash.update(sha256(&self.weights_path(folder, stem)?)?);
        }
        Ok(hex::encode(hash.finalize()))
    }

    fn component<C: serde::de::DeserializeOwned>(
        &self,
        folder: &str,
        stem: &str,
    ) -> Result<((PathBuf, C), Weights), DiffusionError> {
        let config_path = self.dir.join(folder).join("config.json");
        let config = read_json(&config_path)?;
        let weights = Weights::open(self.weights_path(folder, stem)?)?;
        Ok(((config_path, config), weights))
    }

    /// The weight file of a component: the plain one, or the `fp16` variant where only that is there.
    fn weights_path(&self, folder: &str, stem: &str) -> Result<PathBuf, DiffusionError> {
        let folder = self.dir.join(folder);
        let plain = folder.join(format!("{stem}.safetensors"));
        let variant = folder.join(format!("{stem}.fp16.safetensors"));
        if plain.is_file() || !variant.is_file() {
            Ok(plain)
        } else {
            Ok(variant)
        }
    }
}

/// The names that VAE files of SD 1 and 2 have for the projections of their attention.
fn old_attention_name(path: &str) -> String {
    [
        (".to_q.", ".query."),
        (".to_k.", ".key."),
        (".to_v.", ".value."),
        (".to_out.0.", ".proj_attn."),
    ]
    .iter()
    .fold(path.to_owned(), |path, (new, old)| path.replace(new, old))
}
