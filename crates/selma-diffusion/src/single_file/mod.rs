//! A whole model in one file, in the layout of the original code (`.safetensors` or `.ckpt`).
//!
//! The tensors are seen under diffusers' names without being copied: a rename, a part of the rows or a transpose
//! changes how they are read. Sizes come from the shapes; what shapes do not tell follows the family.

mod error;
mod family;
mod part;
mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;

pub use error::SingleFileError;
use part::Part;

use crate::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use crate::presets::{Family, Preset};
use crate::schedulers::SchedulerConfig;
use crate::weights::{StoredTensor, Weights};

/// A network of a single file: the configuration that follows from it, and its tensors under diffusers' names.
#[derive(Debug, Clone)]
pub struct SinglePart<C> {
    /// From the shapes and the family.
    pub config: C,
    /// The tensors.
    pub weights: Weights,
}

/// A whole model in one file.
#[derive(Debug, Clone)]
pub struct SingleFile {
    family: Family,
    preset: Preset,
    scheduler: SchedulerConfig,
    unet: SinglePart<UNet2DConditionModelConfig>,
    vae: SinglePart<AutoencoderKLConfig>,
    text_encoder: SinglePart<ClipTextConfig>,
    unused: Vec<String>,
}

impl SingleFile {
    /// Recognises the model in a file and sees its tensors under diffusers' names.
    ///
    /// `text_layers` is the number of layers that the text encoder of SD 2 keeps; all but the last if none is given.
    ///
    /// # Errors
    ///
    /// If the file holds something else, or more than the model and what is known to come with it.
    pub fn new(weights: &Weights, text_layers: Option<usize>) -> Result<Self, SingleFileError> {
        let family = family::recognise(weights)?;
        let preset = family::preset(family, weights);
        let [text_prefix, ..] = *family::text_prefixes(family) else {
            return Err(SingleFileError::Family {
                path: weights.path().to_owned(),
                found: "without a text encoder".to_owned(),
            });
        };
        let part = |prefix| Part { weights, prefix };
        let unet = unet::UNetLayout::infer(&part(family::UNET))?;
        let vae = vae::VaeLayout::infer(&part(family::VAE))?;
        let base = preset.text_encoder();
        let mut text = match family {
            Family::Sd1 | Family::Sdxl => text::clip_config(&part(text_prefix), base)?,
            Family::Sd2 => text::open_clip_config(&part(text_prefix), base, true)?,
        };
        text.num_hidden_layers = text_layers.unwrap_or(text.num_hidden_layers);

        let mut sorted = Sorted::default();
        for key in weights.names() {
            let Some(tensor) = weights.tensor(key) else {
                continue;
            };
            let known = if family::is_extra(key) {
                sorted.unused.push(key.to_owned());
                true
            } else if let Some(rest) = key.strip_prefix(family::UNET) {
                let named = unet.rename(rest).map(|name| (name, tensor.clone()));
                insert(&mut sorted.unet, named)
            } else if let Some(rest) = key.strip_prefix(family::VAE) {
                insert(&mut sorted.vae, vae.convert(rest, tensor))
            } else if let Some(rest) = key.strip_prefix(text_prefix) {
                match family {
                    Family::Sd1 | Family::Sdxl => {
                        insert(&mut sorted.text, Some((rest.to_owned(), tensor.clone())))
                    }
                    Family::Sd2 => {
                        let layers = text.num_hidden_layers;
                        match text::convert_open_clip(rest, tensor, layers, false) {
                            Some(named) => {
                                if named.is_empty() {
                                    sorted.unused.push(key.to_owned());
                                }
                                sorted.text.extend(named);
                                true
                            }
                            None => false,
                        }
                    }
                }
            } else {
                false
            };
            if !known {
                sorted.unknown.push(key.to_owned());
            }
        }
        if !sorted.unknown.is_empty() {
            return Err(SingleFileError::Unknown {
                path: weights.path().to_owned(),
                family,
                keys: sorted.unknown,
            });
        }
        let named = |tensors| Weights::of(weights.path().to_owned(), tensors);
        Ok(Self {
            family,
            preset,
            scheduler: family::scheduler(preset, weights),
            unet: SinglePart {
                config: unet.config(preset),
                weights: named(sorted.unet),
            },
            vae: SinglePart {
                config: vae.config(preset),
                weights: named(sorted.vae),
            },
            text_encoder: SinglePart {
                config: text,
                weights: named(sorted.text),
            },
            unused: sorted.unused,
        })
    }

    /// What the file was recognised as.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The published model that stands for what shapes do not tell.
    #[must_use]
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The scheduler of the family.
    #[must_use]
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The denoising network.
    #[must_use]
    pub fn unet(&self) -> &SinglePart<UNet2DConditionModelConfig> {
        &self.unet
    }

    /// The VAE.
    #[must_use]
    pub fn vae(&self) -> &SinglePart<AutoencoderKLConfig> {
        &self.vae
    }

    /// The text encoder.
    #[must_use]
    pub fn text_encoder(&self) -> &SinglePart<ClipTextConfig> {
        &self.text_encoder
    }

    /// Tensors that are known to be no part of the model.
    #[must_use]
    pub fn unused(&self) -> &[String] {
        &self.unused
    }
}

/// All tensors of a file by where they belong.
#[derive(Debug, Default)]
struct Sorted {
    unet: BTreeMap<String, StoredTensor>,
    vae: BTreeMap<String, StoredTensor>,
    text: BTreeMap<String, StoredTensor>,
    unused: Vec<String>,
    unknown: Vec<String>,
}

/// Whether there was a name for the tensor.
fn insert(
    tensors: &mut BTreeMap<String, StoredTensor>,
    named: Option<(String, StoredTensor)>,
) -> bool {
    let known = named.is_some();
    tensors.extend(named);
    known
}
