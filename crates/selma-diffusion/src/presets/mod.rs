//! The published models' configurations, for files that carry none.
//!
//! They are the `config.json` files of the repositories, and tested equal to them.

mod configs;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use crate::schedulers::SchedulerConfig;

/// An architecture of Stable Diffusion: models of one family differ in their weights, and in sizes that the weights
/// tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Stable Diffusion 1: the text encoder of CLIP ViT-L/14, eight heads on every level.
    Sd1,
    /// Stable Diffusion 2: that of OpenCLIP ViT-H/14 without its last layer, heads of 64 channels.
    Sd2,
    /// Stable Diffusion XL, base model: both text encoders and added conditions.
    Sdxl,
}

/// The pad token of the second tokenizer, that of OpenCLIP.
pub(crate) const SECOND_PAD_TOKEN: &str = "!";

impl Family {
    /// The family whose published UNet has this one's sizes, whatever else it was trained for.
    #[must_use]
    pub fn of_unet(unet: &UNet2DConditionModelConfig) -> Option<Self> {
        [
            (Self::Sd1, Preset::Sd15),
            (Self::Sd2, Preset::Sd21),
            (Self::Sdxl, Preset::SdxlBase),
        ]
        .into_iter()
        .find_map(|(family, preset)| {
            let published = preset.unet();
            let same = unet.block_out_channels == published.block_out_channels
                && unet.cross_attention_dim == published.cross_attention_dim
                && unet.use_linear_projection == published.use_linear_projection
                && unet.addition_embed_type == published.addition_embed_type;
            same.then_some(family)
        })
    }

    /// The pad token of the first tokenizer.
    #[must_use]
    pub fn pad_token(self) -> &'static str {
        match self {
            Self::Sd1 | Self::Sdxl => "<|endoftext|>",
            Self::Sd2 => SECOND_PAD_TOKEN,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sd1 => "Stable Diffusion 1",
            Self::Sd2 => "Stable Diffusion 2",
            Self::Sdxl => "Stable Diffusion XL",
        })
    }
}

/// A published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// `CompVis/stable-diffusion-v1-4`.
    Sd14,
    /// `stable-diffusion-v1-5/stable-diffusion-v1-5`.
    Sd15,
    /// `stabilityai/stable-diffusion-2-base`: 512 pixels, predicts noise.
    Sd2Base,
    /// `stabilityai/stable-diffusion-2`: 768 pixels, predicts velocity.
    Sd2,
    /// `stabilityai/stable-diffusion-2-1-base`: 512 pixels, predicts noise.
    Sd21Base,
    /// `stabilityai/stable-diffusion-2-1`: 768 pixels, predicts velocity.
    Sd21,
    /// `stabilityai/stable-diffusion-xl-base-1.0`.
    SdxlBase,
}

/// A name that is none of a [`Preset`].
#[derive(Debug, Error)]
#[error("no published model {0:?}")]
pub struct UnknownPreset(
    /// What was given.
    pub String,
);

impl Preset {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sd14,
        Self::Sd15,
        Self::Sd2Base,
        Self::Sd2,
        Self::Sd21Base,
        Self::Sd21,
        Self::SdxlBase,
    ];

    /// A short name, for command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd14 => "sd14",
            Self::Sd15 => "sd15",
            Self::Sd2Base => "sd2-base",
            Self::Sd2 => "sd2",
            Self::Sd21Base => "sd21-base",
            Self::Sd21 => "sd21",
            Self::SdxlBase => "sdxl-base",
        }
    }

    /// Its architecture.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Sd14 | Self::Sd15 => Family::Sd1,
            Self::Sd2Base | Self::Sd2 | Self::Sd21Base | Self::Sd21 => Family::Sd2,
            Self::SdxlBase => Family::Sdxl,
        }
    }

    /// `unet/config.json`.
    #[must_use]
    pub fn unet(self) -> UNet2DConditionModelConfig {
        match self {
            Self::Sd14 | Self::Sd15 => configs::sd1_unet(),
            Self::Sd2Base | Self::Sd21Base => configs::sd2_unet(64, None),
            Self::Sd2 => configs::sd2_unet(96, None),
            Self::Sd21 => configs::sd2_unet(96, Some(true)),
            Self::SdxlBase => configs::sdxl_unet(),
        }
    }

    /// `vae/config.json`.
    #[must_use]
    pub fn vae(self) -> AutoencoderKLConfig {
        match self.family() {
            Family::Sd1 => configs::vae(512, 0.18215),
            Family::Sd2 => configs::vae(768, 0.18215),
            Family::Sdxl => configs::vae(1024, 0.13025),
        }
    }

    /// `text_encoder/config.json`.
    #[must_use]
    pub fn text_encoder(self) -> ClipTextConfig {
        match self {
            // The file leaves it out; nothing is projected either way.
            Self::Sd14 => configs::clip_l(512),
            Self::Sd15 | Self::SdxlBase => configs::clip_l(768),
            Self::Sd2Base | Self::Sd2 | Self::Sd21Base | Self::Sd21 => configs::open_clip_h(),
        }
    }

    /// `text_encoder_2/config.json`, which SDXL has.
    #[must_use]
    pub fn text_encoder_2(self) -> Option<ClipTextConfig> {
        (self.family() == Family::Sdxl).then(configs::open_clip_big_g)
    }

    /// `scheduler/scheduler_config.json`.
    #[must_use]
    pub fn scheduler(self) -> SchedulerConfig {
        match self {
            Self::Sd14 | Self::Sd15 => configs::sd1_scheduler(),
            Self::Sd2Base | Self::Sd21Base => configs::sd2_base_scheduler(),
            Self::Sd2 | Self::Sd21 => configs::sd2_scheduler(),
            Self::SdxlBase => configs::sdxl_scheduler(),
        }
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| UnknownPreset(name.to_owned()))
    }
}
