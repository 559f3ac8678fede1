//! What to read instead of what a checkpoint says.

use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::FloatDType;
use serde::de::DeserializeOwned;

use super::Located;
use crate::DiffusionError;
use crate::config::read_json;
use crate::presets::{Preset, UnknownPreset};

/// What to read instead of what a checkpoint says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// The variant of a folder's weight files, such as `fp16`, of the components that have it; of the others the plain files
    /// are taken, as diffusers does. One component must have it.
    pub variant: Option<String>,
    /// Configurations that go before those of the checkpoint.
    pub config: Option<ConfigSource>,
    /// A tokenizer's folder, which then serves both text encoders of SDXL, or a pipeline's folder with one or two.
    pub tokenizer: Option<PathBuf>,
    /// A VAE instead of the checkpoint's own: a folder with `config.json` and weights (or a pipeline's folder with one), or a file
    /// in the original or in diffusers' layout, whose configuration is the one of `config`, or of the checkpoint's family but for what
    /// shapes tell.
    pub vae: Option<PathBuf>,
    /// Number type that the networks are loaded in; `f32` if none is given. In `f16` the VAE of SDXL stays in `f32`, see
    /// [`StableDiffusion::with_dtype`](crate::StableDiffusion::with_dtype).
    pub dtype: Option<FloatDType>,
    /// Number type that the weights of the `UNet` are kept in, if it is another than that of the networks. Its layers compute in the type of their inputs, and
    /// convert their weights one by one: half the memory for an adapter that is trained in `f32` on a model in `bf16`.
    pub unet_dtype: Option<FloatDType>,
}

/// Where configurations come from that go before a checkpoint's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A pipeline's folder: any of `unet/config.json`, `vae/config.json`, .. that it has, and its tokenizer.
    Folder(PathBuf),
    /// A published model.
    Preset(Preset),
}

/// A folder that is there goes before the name of a published model.
impl FromStr for ConfigSource {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        let folder = PathBuf::from(text);
        if folder.is_dir() {
            return Ok(Self::Folder(folder));
        }
        text.parse().map(Self::Preset)
    }
}

impl ConfigSource {
    /// The configuration of a component and where it stands, if this has one.
    pub(super) fn config<C: DeserializeOwned>(
        &self,
        name: &str,
        published: impl Fn(Preset) -> Option<C>,
    ) -> Result<Option<Located<C>>, DiffusionError> {
        match self {
            Self::Preset(preset) => {
                let place = PathBuf::from(preset.name());
                Ok(published(*preset).map(|config| (config, place)))
            }
            Self::Folder(folder) => {
                let path = folder.join(name).join("config.json");
                if path.is_file() {
                    Ok(Some((read_json(&path)?, path)))
                } else {
                    Ok(None)
                }
            }
        }
    }
}
