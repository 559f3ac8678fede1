//! A whole model in one file, in the layout of the original code (`.safetensors` or `.ckpt`).
//!
//! The tensors are seen under diffusers' names without being copied: a rename, a part of the rows or a transpose
//! changes how they are read. Sizes come from the shapes; what shapes do not tell follows the family.

mod error;
mod family;
pub(crate) mod image_reward;
pub(crate) mod open_clip;
mod part;
mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;

pub use error::SingleFileError;
use part::Part;

use selma_lora::fuse::{Place, module_of};

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
    text_encoder_2: Option<SinglePart<ClipTextConfig>>,
    unused: Vec<String>,
    strays: Vec<String>,
    places: BTreeMap<String, Vec<Place>>,
}

impl SingleFile {
    /// Recognises the model in a file and sees its tensors under diffusers' names.
    ///
    /// `text_layers` is the number of layers that the text encoder of SD 2 keeps; all but the last if none is given.
    ///
    /// # Errors
    ///
    /// If the file holds something else. Tensors that stand among those of a network without being its own are an error when the network is loaded.
    pub fn new(weights: &Weights, text_layers: Option<usize>) -> Result<Self, SingleFileError> {
        let family = family::recognise(weights)?;
        let preset = family::preset(family, weights);
        let part = |prefix| Part { weights, prefix };
        let unet = unet::UNetLayout::infer(&part(family::UNET))?;
        let vae = vae::VaeLayout::infer(&part(family::VAE))?;
        let (text, text_2) = text::TextLayout::infer(preset, part, text_layers)?;

        let mut sorted = Sorted::default();
        for key in weights.names() {
            let Some(tensor) = weights.tensor(key) else {
                continue;
            };
            if family::is_extra(key) {
                sorted.unused.push(key.to_owned());
            } else if let Some(rest) = key.strip_prefix(family::UNET) {
                // The added conditions of other families are other than those of SDXL.
                let known = family == Family::Sdxl || !rest.starts_with("label_emb.");
                let name = unet.rename(rest).filter(|_| known);
                let named = name.map(|name| vec![(name, tensor.clone())]);
                sorted.add_layers("unet", key, tensor, named.as_ref());
                sorted.add(|sorted| &mut sorted.unet, key, tensor, named);
            } else if let Some(rest) = key.strip_prefix(family::VAE) {
                let named = vae.convert(rest, tensor).map(|named| vec![named]);
                sorted.add(|sorted| &mut sorted.vae, key, tensor, named);
            } else if let Some(rest) = key.strip_prefix(text.prefix) {
                let named = text.convert(rest, tensor);
                sorted.add_layers("text_encoder", key, tensor, named.as_ref());
                sorted.add(|sorted| &mut sorted.text, key, tensor, named);
            } else if let Some((second, rest)) = text_2
                .as_ref()
                .and_then(|second| Some((second, key.strip_prefix(second.prefix)?)))
            {
                let named = second.convert(rest, tensor);
                sorted.add_layers("text_encoder_2", key, tensor, named.as_ref());
                sorted.add(|sorted| &mut sorted.text_2, key, tensor, named);
            } else {
                sorted.strays.push(key.to_owned());
            }
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
                config: text.config,
                weights: named(sorted.text),
            },
            text_encoder_2: text_2.map(|second| SinglePart {
                config: second.config,
                weights: named(sorted.text_2),
            }),
            unused: sorted.unused,
            strays: sorted.strays,
            places: sorted.places,
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

    /// The second text encoder, which SDXL has.
    #[must_use]
    pub fn text_encoder_2(&self) -> Option<&SinglePart<ClipTextConfig>> {
        self.text_encoder_2.as_ref()
    }

    /// The layers whose weights a tensor of the file holds, by the tensor's name in the file: what [`fuse_file`](selma_lora::fuse::fuse_file) needs to know.
    #[must_use]
    pub fn places(&self, tensor: &str) -> &[Place] {
        self.places.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// Tensors that are known to be no part of the model.
    #[must_use]
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Tensors that nothing is known of. They are in no network's place, and are ignored, as diffusers ignores them.
    #[must_use]
    pub fn strays(&self) -> &[String] {
        &self.strays
    }
}

/// The VAE of a file that holds one alone, or a whole model: in the original layout, or in that of diffusers. What shapes do not tell
/// is as in `preset`.
///
/// # Errors
///
/// If there is no VAE in the file.
pub(crate) fn vae_alone(
    weights: &Weights,
    preset: Preset,
) -> Result<SinglePart<AutoencoderKLConfig>, SingleFileError> {
    let has = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    if has("encoder.down_blocks.") {
        return Ok(SinglePart {
            config: preset.vae(),
            weights: weights.clone(),
        });
    }
    let whole = has(family::VAE);
    let prefix = if whole { family::VAE } else { "" };
    let vae = vae::VaeLayout::infer(&Part { weights, prefix })?;
    let mut tensors = BTreeMap::new();
    for key in weights.names() {
        let (Some(rest), Some(tensor)) = (key.strip_prefix(prefix), weights.tensor(key)) else {
            continue;
        };
        // What the training of a VAE leaves in its checkpoints.
        if family::is_extra(key) || rest.starts_with("loss.") {
            continue;
        }
        let own = || (key.to_owned(), tensor.clone());
        let (name, tensor) = vae.convert(rest, tensor).unwrap_or_else(own);
        tensors.insert(name, tensor);
    }
    Ok(SinglePart {
        config: vae.config(preset),
        weights: Weights::of(weights.path().to_owned(), tensors),
    })
}

/// All tensors of a file by where they belong.
#[derive(Debug, Default)]
struct Sorted {
    unet: BTreeMap<String, StoredTensor>,
    vae: BTreeMap<String, StoredTensor>,
    text: BTreeMap<String, StoredTensor>,
    text_2: BTreeMap<String, StoredTensor>,
    unused: Vec<String>,
    strays: Vec<String>,
    places: BTreeMap<String, Vec<Place>>,
}

impl Sorted {
    /// Remembers which layers of a component have their weights in a tensor.
    fn add_layers(
        &mut self,
        component: &str,
        key: &str,
        tensor: &StoredTensor,
        named: Option<&Vec<(String, StoredTensor)>>,
    ) {
        let places = named.into_iter().flatten().filter_map(|(name, part)| {
            let place = module_of(component, name)?;
            let part = part.part_of(tensor)?;
            Some(Place { part, ..place })
        });
        let places: Vec<Place> = places.collect();
        if !places.is_empty() {
            self.places.insert(key.to_owned(), places);
        }
    }

    /// Puts a tensor under its new names: an empty list if it is not needed. One that the network does not have (`None`) keeps its name, so that it is found to be too much
    /// when the network is loaded or looked at.
    fn add(
        &mut self,
        part: impl Fn(&mut Self) -> &mut BTreeMap<String, StoredTensor>,
        key: &str,
        tensor: &StoredTensor,
        named: Option<Vec<(String, StoredTensor)>>,
    ) {
        match named {
            None => drop(part(self).insert(key.to_owned(), tensor.clone())),
            Some(named) if named.is_empty() => self.unused.push(key.to_owned()),
            Some(named) => part(self).extend(named),
        }
    }
}
