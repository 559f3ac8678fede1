//! The VAE.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraConv2d, LoraConv2dConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::vae::{Decoder, Encoder, VaeLayout};
use crate::config::{ConfigError, LAYERS, LEVELS, WIDTHS, require_default, require_sizes};
use crate::nn::Activation;

/// `vae/config.json` of diffusers, with diffusers' defaults (`AutoencoderKL.__init__`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKLConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the decoded image.
    pub out_channels: usize,
    /// `DownEncoderBlock2D` on every level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` on every level.
    pub up_block_types: Vec<String>,
    /// Channels of each level, from the top.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level in the encoder; one more in the decoder.
    pub layers_per_block: usize,
    /// Activation between the layers.
    pub act_fn: Activation,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of all normalisations.
    pub norm_num_groups: usize,
    /// Height and width of the image at the model's native size.
    pub sample_size: usize,
    /// What latents are multiplied by to have unit variance.
    pub scaling_factor: f64,
    /// Whether the model overflows in `f16`: true of SDXL's, not of its version made for `f16`. Pipelines of SD 1 and 2
    /// do not look at it.
    pub force_upcast: bool,
    /// Whether the encoder ends in a 1x1 convolution.
    pub use_quant_conv: bool,
    /// Whether the decoder starts with a 1x1 convolution.
    pub use_post_quant_conv: bool,
    /// Whether there is attention at the bottom.
    pub mid_block_add_attention: bool,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for AutoencoderKLConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".to_owned()],
            up_block_types: vec!["UpDecoderBlock2D".to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            rest: Map::new(),
        }
    }
}

impl AutoencoderKLConfig {
    /// Pixels per latent in each direction.
    #[must_use]
    pub fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that the model can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(
            &self.rest,
            &[
                ("shift_factor", Value::Null),
                ("latents_mean", Value::Null),
                ("latents_std", Value::Null),
            ],
        )?;
        let levels = self.block_out_channels.len();
        require_sizes(&[
            ("number of block_out_channels", levels, LEVELS),
            ("in_channels", self.in_channels, WIDTHS),
            ("out_channels", self.out_channels, WIDTHS),
            ("latent_channels", self.latent_channels, WIDTHS),
            ("layers_per_block", self.layers_per_block, LAYERS),
            ("norm_num_groups", self.norm_num_groups, WIDTHS),
            ("sample_size", self.sample_size, WIDTHS),
        ])?;
        for (field, types, expected) in [
            (
                "down_block_types",
                &self.down_block_types,
                "DownEncoderBlock2D",
            ),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            if types.len() != levels {
                return Err(ConfigError::invalid(
                    field,
                    format!("{levels} entries, as in block_out_channels"),
                    types.len(),
                ));
            }
            if let Some(other) = types.iter().find(|&name| name != expected) {
                return Err(ConfigError::invalid(field, expected, other));
            }
        }
        if self.act_fn != Activation::Silu {
            return Err(ConfigError::invalid(
                "act_fn",
                "silu",
                format!("{:?}", self.act_fn),
            ));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(ConfigError::invalid(
                "scaling_factor",
                "a positive number",
                self.scaling_factor,
            ));
        }
        for &channels in &self.block_out_channels {
            require_sizes(&[("block_out_channels", channels, WIDTHS)])?;
            if !channels.is_multiple_of(self.norm_num_groups) {
                return Err(ConfigError::invalid(
                    "block_out_channels",
                    format!("a multiple of norm_num_groups {}", self.norm_num_groups),
                    channels,
                ));
            }
        }
        Ok(())
    }

    /// The model, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<AutoencoderKL, ConfigError> {
        self.validate()?;
        let layout = VaeLayout {
            block_out_channels: &self.block_out_channels,
            layers_per_block: self.layers_per_block,
            norm_num_groups: self.norm_num_groups,
            mid_block_add_attention: self.mid_block_add_attention,
        };
        let moments = 2 * self.latent_channels;
        let pointwise = |channels| LoraConv2dConfig::new(channels, channels, 1).init(device);
        Ok(AutoencoderKL {
            encoder: Encoder::init(self.in_channels, moments, layout, device),
            decoder: Decoder::init(self.latent_channels, self.out_channels, layout, device),
            quant_conv: self.use_quant_conv.then(|| pointwise(moments)),
            post_quant_conv: self
                .use_post_quant_conv
                .then(|| pointwise(self.latent_channels)),
        })
    }
}

/// A variational autoencoder between images and latents.
#[derive(Module, Debug)]
pub struct AutoencoderKL {
    /// From images.
    pub encoder: Encoder,
    /// To images.
    pub decoder: Decoder,
    /// After the encoder.
    pub quant_conv: Option<LoraConv2d>,
    /// Before the decoder.
    pub post_quant_conv: Option<LoraConv2d>,
}

lora_layers!(AutoencoderKL {
    encoder,
    decoder,
    quant_conv,
    post_quant_conv
});

/// The distribution of an image's latents: independent normals.
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    /// `[batch, latent_channels, height, width]`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, clamped to -30..20 as in diffusers; same shape.
    pub logvar: Tensor<4>,
}

impl DiagonalGaussian {
    /// The distribution with these moments, the means before the logarithms of the variances: `[batch, 2 * latent_channels, height, width]`.
    #[must_use]
    pub fn from_moments(moments: Tensor<4>) -> Self {
        let channels = moments.dims()[1] / 2;
        Self {
            mean: moments.clone().narrow(1, 0, channels),
            logvar: moments.narrow(1, channels, channels).clamp(-30.0, 20.0),
        }
    }

    /// Draws latents, given noise of unit variance and the same shape.
    #[must_use]
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.logvar.clone().mul_scalar(0.5).exp() * noise
    }
}

impl AutoencoderKL {
    /// Encodes images.
    ///
    /// # Shapes
    ///
    /// - image: `[batch, in_channels, height, width]` in -1..1
    /// - moments: `[batch, latent_channels, height / f, width / f]`
    #[must_use]
    pub fn encode(&self, image: Tensor<4>) -> DiagonalGaussian {
        DiagonalGaussian::from_moments(self.moments(image))
    }

    /// The moments of the distribution: see [`DiagonalGaussian::from_moments`].
    pub(super) fn moments(&self, image: Tensor<4>) -> Tensor<4> {
        let moments = self.encoder.forward(image);
        match &self.quant_conv {
            Some(conv) => conv.forward(moments),
            None => moments,
        }
    }

    /// Decodes latents (already divided by `scaling_factor`).
    ///
    /// # Shapes
    ///
    /// - latents: `[batch, latent_channels, height, width]`
    /// - output: `[batch, out_channels, height * f, width * f]`, about -1..1
    #[must_use]
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let latents = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        self.decoder.forward(latents)
    }
}
