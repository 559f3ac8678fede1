//! How a picture was drawn.

use std::path::Path;

use selma_durable::sha256;
use serde::{Deserialize, Serialize};

use crate::DiffusionError;
use crate::pipeline::MicroConditioning;
use crate::schedulers::SchedulerConfig;

/// Everything that a picture can be drawn again with, besides its size. Hashes are SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this crate.
    pub version: String,
    /// What was drawn.
    pub prompt: String,
    /// What was not to be drawn, if anything was said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Seed of all noise.
    pub seed: u64,
    /// Number of denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub guidance: f64,
    /// How far guidance was brought back to the deviation without it.
    #[serde(default)]
    pub guidance_rescale: f64,
    /// Noise that DDIM added after every step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub eta: f64,
    /// Layers of the text encoders that were skipped, if any was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// The sizes that SDXL was told, where they were not the picture's own.
    #[serde(default, skip_serializing_if = "MicroConditioning::is_default")]
    pub micro_conditioning: MicroConditioning,
    /// Name of the scheduler.
    pub scheduler: String,
    /// Its whole configuration.
    pub scheduler_config: SchedulerConfig,
    /// Number type of the networks: `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Side of the tiles of the VAE in pixels, if it worked in tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae_tile_size: Option<usize>,
    /// The weights of the model.
    pub model: UsedFile,
    /// The weights of the VAE, if it was not the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<UsedFile>,
    /// Adapters, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<UsedAdapter>,
    /// The picture that the run started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_image: Option<UsedImage>,
    /// The noise that was taken instead of the seed's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_latents: Option<UsedFile>,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// A file or folder that had a part in a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedFile {
    /// Its name without the folder it lay in.
    pub name: String,
    /// Hash of its bytes.
    pub sha256: String,
}

impl UsedFile {
    /// A file or folder whose hash is known.
    #[must_use]
    pub fn new(path: &Path, sha256: String) -> Self {
        // A path that ends in `..` has no last part.
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            sha256,
        }
    }

    /// A file, which is read for its hash.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<Self, DiffusionError> {
        Ok(Self::new(path, hex::encode(sha256(path)?)))
    }
}

/// A LoRA adapter that had a part in a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsedAdapter {
    /// Its file.
    #[serde(flatten)]
    pub file: UsedFile,
    /// Its strength.
    pub weight: f64,
    /// Whether it was added to the weights rather than computed beside them.
    #[serde(default)]
    pub fused: bool,
}

/// A picture that a run started from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsedImage {
    /// Its file.
    #[serde(flatten)]
    pub file: UsedFile,
    /// How much of the run was made.
    pub strength: f64,
}

impl Settings {
    /// As JSON, in one line.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}
