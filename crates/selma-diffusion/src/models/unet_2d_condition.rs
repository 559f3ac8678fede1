//! The denoising network.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraConv2d, LoraConv2dConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    DownBlock2D, MidBlock2D, TimestepEmbedding, Transformer2DModelConfig, UNetBlockConfig,
    UpBlock2D, timestep_embedding,
};
use crate::config::{ConfigError, require_default};
use crate::nn::{Activation, GroupNorm};

/// A value for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same on every level.
    Same(usize),
    /// One value a level, from the top.
    Each(Vec<usize>),
}

impl PerBlock {
    /// The value of a level.
    #[must_use]
    pub fn get(&self, level: usize) -> Option<usize> {
        match self {
            Self::Same(value) => Some(*value),
            Self::Each(values) => values.get(level).copied(),
        }
    }
}

/// `unet/config.json` of diffusers, with diffusers' defaults (`UNet2DConditionModel.__init__`).
///
/// Options that this implementation does not have are checked against their defaults by
/// [`validate`](Self::validate), never ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionModelConfig {
    /// Height and width of the latents at the model's native size.
    pub sample_size: Option<usize>,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub freq_shift: f64,
    /// `CrossAttnDownBlock2D` or `DownBlock2D`, from the top.
    pub down_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn`.
    pub mid_block_type: String,
    /// `UpBlock2D` or `CrossAttnUpBlock2D`, from the bottom.
    pub up_block_types: Vec<String>,
    /// Channels of each level, from the top.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Activation between the layers.
    pub act_fn: Activation,
    /// Groups of all normalisations.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' normalisations.
    pub norm_eps: f64,
    /// Width of the text's embeddings.
    pub cross_attention_dim: usize,
    /// In spite of its name the *number* of heads (a historical slip that diffusers keeps for its files' sake).
    pub attention_head_dim: PerBlock,
    /// The number of heads, where a file states it by its right name.
    pub num_attention_heads: Option<PerBlock>,
    /// Blocks in each transformer.
    pub transformer_layers_per_block: PerBlock,
    /// Linear instead of 1x1 convolution around the transformers (SD 2, SDXL).
    pub use_linear_projection: bool,
    /// Whether attention logits are computed in `f32`; has no effect on a model that is in `f32`.
    pub upcast_attention: bool,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for UNet2DConditionModelConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let cross_down = "CrossAttnDownBlock2D";
        let cross_up = "CrossAttnUpBlock2D";
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: names(&[cross_down, cross_down, cross_down, "DownBlock2D"]),
            mid_block_type: "UNetMidBlock2DCrossAttn".to_owned(),
            up_block_types: names(&["UpBlock2D", cross_up, cross_up, cross_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            attention_head_dim: PerBlock::Same(8),
            num_attention_heads: None,
            transformer_layers_per_block: PerBlock::Same(1),
            use_linear_projection: false,
            upcast_attention: false,
            rest: Map::new(),
        }
    }
}

impl UNet2DConditionModelConfig {
    /// Checks that the model can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value this implementation does not have, or that contradicts another.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(
            &self.rest,
            &[
                ("center_input_sample", Value::Bool(false)),
                ("only_cross_attention", Value::Bool(false)),
                ("downsample_padding", Value::from(1)),
                ("mid_block_scale_factor", Value::from(1)),
                ("dropout", Value::from(0.0)),
                ("dual_cross_attention", Value::Bool(false)),
                ("class_embed_type", Value::Null),
                ("addition_embed_type", Value::Null),
                ("encoder_hid_dim", Value::Null),
                ("encoder_hid_dim_type", Value::Null),
                ("num_class_embeds", Value::Null),
                ("resnet_time_scale_shift", Value::from("default")),
                ("resnet_skip_time_act", Value::Bool(false)),
                ("resnet_out_scale_factor", Value::from(1.0)),
                ("time_embedding_type", Value::from("positional")),
                ("time_embedding_dim", Value::Null),
                ("time_embedding_act_fn", Value::Null),
                ("timestep_post_act", Value::Null),
                ("time_cond_proj_dim", Value::Null),
                ("conv_in_kernel", Value::from(3)),
                ("conv_out_kernel", Value::from(3)),
                ("attention_type", Value::from("default")),
                ("class_embeddings_concat", Value::Bool(false)),
                ("mid_block_only_cross_attention", Value::Null),
                ("cross_attention_norm", Value::Null),
                ("reverse_transformer_layers_per_block", Value::Null),
            ],
        )?;
        let levels = self.block_out_channels.len();
        if levels == 0 {
            return Err(ConfigError::invalid(
                "block_out_channels",
                "at least one level",
                "[]",
            ));
        }
        for (field, types) in [
            ("down_block_types", &self.down_block_types),
            ("up_block_types", &self.up_block_types),
        ] {
            if types.len() != levels {
                return Err(ConfigError::invalid(
                    field,
                    format!("{levels} entries, as in block_out_channels"),
                    types.len(),
                ));
            }
        }
        for name in &self.down_block_types {
            if !matches!(name.as_str(), "DownBlock2D" | "CrossAttnDownBlock2D") {
                return Err(ConfigError::invalid(
                    "down_block_types",
                    "DownBlock2D or CrossAttnDownBlock2D",
                    name,
                ));
            }
        }
        for name in &self.up_block_types {
            if !matches!(name.as_str(), "UpBlock2D" | "CrossAttnUpBlock2D") {
                return Err(ConfigError::invalid(
                    "up_block_types",
                    "UpBlock2D or CrossAttnUpBlock2D",
                    name,
                ));
            }
        }
        if self.mid_block_type != "UNetMidBlock2DCrossAttn" {
            return Err(ConfigError::invalid(
                "mid_block_type",
                "UNetMidBlock2DCrossAttn",
                &self.mid_block_type,
            ));
        }
        if self.act_fn != Activation::Silu {
            return Err(ConfigError::invalid(
                "act_fn",
                "silu",
                format!("{:?}", self.act_fn),
            ));
        }
        if self.layers_per_block == 0 {
            return Err(ConfigError::invalid("layers_per_block", "at least 1", 0));
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if channels == 0 || !channels.is_multiple_of(self.norm_num_groups.max(1)) {
                return Err(ConfigError::invalid(
                    "block_out_channels",
                    format!("a multiple of norm_num_groups {}", self.norm_num_groups),
                    channels,
                ));
            }
            let heads = self.heads(level)?;
            if heads == 0 || channels % heads != 0 {
                return Err(ConfigError::invalid(
                    "attention_head_dim",
                    format!("a number of heads that divides {channels} channels"),
                    heads,
                ));
            }
        }
        Ok(())
    }

    fn heads(&self, level: usize) -> Result<usize, ConfigError> {
        self.num_attention_heads
            .as_ref()
            .unwrap_or(&self.attention_head_dim)
            .get(level)
            .ok_or_else(|| {
                ConfigError::invalid("attention_head_dim", "one value for every level", level)
            })
    }

    fn block(&self, level: usize, cross: bool) -> Result<UNetBlockConfig, ConfigError> {
        let channels = *self.block_out_channels.get(level).ok_or_else(|| {
            ConfigError::invalid("block_out_channels", "one value for every level", level)
        })?;
        let num_layers = self
            .transformer_layers_per_block
            .get(level)
            .ok_or_else(|| {
                ConfigError::invalid(
                    "transformer_layers_per_block",
                    "one value for every level",
                    level,
                )
            })?;
        let attention = Transformer2DModelConfig {
            channels,
            heads: self.heads(level)?,
            num_layers,
            cross_attention_dim: self.cross_attention_dim,
            norm_num_groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
        };
        Ok(UNetBlockConfig {
            out_channels: channels,
            temb_channels: self.temb_channels(),
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            attention: cross.then_some(attention),
        })
    }

    fn top(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or_default()
    }

    fn temb_channels(&self) -> usize {
        4 * self.top()
    }

    /// Channels of the skip connections in the order in which they are made.
    fn skip_channels(&self) -> Vec<usize> {
        let mut skips = vec![self.top()];
        let levels = self.block_out_channels.len();
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let downsampled = usize::from(level + 1 < levels);
            skips.extend(std::iter::repeat_n(
                channels,
                self.layers_per_block + downsampled,
            ));
        }
        skips
    }

    /// The model, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<UNet2DConditionModel, ConfigError> {
        self.validate()?;
        let levels = self.block_out_channels.len();
        let mut down_blocks = Vec::with_capacity(levels);
        let mut in_channels = self.top();
        for (level, name) in self.down_block_types.iter().enumerate() {
            let block = self.block(level, name == "CrossAttnDownBlock2D")?;
            let last = level + 1 == levels;
            down_blocks.push(block.down(in_channels, self.layers_per_block, last, device));
            in_channels = block.out_channels;
        }
        let mid_block = self.block(levels - 1, true)?.mid(device);
        let mut skips = self.skip_channels();
        let mut up_blocks = Vec::with_capacity(levels);
        for (index, name) in self.up_block_types.iter().enumerate() {
            let block = self.block(levels - 1 - index, name == "CrossAttnUpBlock2D")?;
            let inputs: Vec<usize> = (0..=self.layers_per_block)
                .map(|_| {
                    let channels = in_channels + skips.pop().unwrap_or_default();
                    in_channels = block.out_channels;
                    channels
                })
                .collect();
            up_blocks.push(block.up(&inputs, index + 1 == levels, device));
        }
        let top = self.top();
        Ok(UNet2DConditionModel {
            conv_in: LoraConv2dConfig::new(self.in_channels, top, 3).init(device),
            time_embedding: TimestepEmbedding::init(top, self.temb_channels(), device),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::init(self.norm_num_groups, top, self.norm_eps, device),
            conv_out: LoraConv2dConfig::new(top, self.out_channels, 3).init(device),
            time_channels: top,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        })
    }
}

/// The denoising network of Stable Diffusion.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    /// From latents to channels.
    pub conv_in: LoraConv2d,
    /// Over the sinusoidal embedding of the timestep.
    pub time_embedding: TimestepEmbedding,
    /// From the top.
    pub down_blocks: Vec<DownBlock2D>,
    /// At the bottom.
    pub mid_block: MidBlock2D,
    /// From the bottom.
    pub up_blocks: Vec<UpBlock2D>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// From channels to the prediction.
    pub conv_out: LoraConv2d,
    /// Width of the sinusoidal embedding.
    pub time_channels: usize,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies.
    pub freq_shift: f64,
}

lora_layers!(UNet2DConditionModel {
    conv_in,
    time_embedding,
    down_blocks,
    mid_block,
    up_blocks,
    conv_out,
});

impl UNet2DConditionModel {
    /// Predicts noise, velocity or sample (whatever the model was trained for).
    ///
    /// # Shapes
    ///
    /// - sample: `[batch, in_channels, height, width]`
    /// - timesteps: one per sample, in `0..1000`
    /// - context: `[batch, text length, cross_attention_dim]`
    /// - output: `[batch, out_channels, height, width]`
    #[must_use]
    pub fn forward(&self, sample: Tensor<4>, timesteps: &[f64], context: &Tensor<3>) -> Tensor<4> {
        let device = sample.device();
        let embedding = timestep_embedding(
            timesteps,
            self.time_channels,
            self.flip_sin_to_cos,
            self.freq_shift,
            &device,
        )
        .cast(sample.dtype());
        // Every residual block applies the activation to the same embedding: once is enough.
        let temb = Activation::Silu.forward(self.time_embedding.forward(embedding));
        let mut hidden = self.conv_in.forward(sample);
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &temb, context, &mut skips);
        }
        hidden = self.mid_block.forward(hidden, &temb, context);
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &temb, context, &mut skips);
        }
        self.conv_out
            .forward(self.conv_norm_out.forward_silu(hidden))
    }
}
