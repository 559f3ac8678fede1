//! Configuration of the denoising network.

use burn::tensor::Device;
use selma_lora::nn::LoraConv2dConfig;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{
    TimeIds, TimestepEmbedding, Transformer2DModelConfig, UNet2DConditionModel, UNetBlockConfig,
};
use crate::config::{ConfigError, LAYERS, LEVELS, WIDTHS, require_default, require_sizes};
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
    /// `UNetMidBlock2DCrossAttn`, or null, as in the smaller of the models of BK-SDM (arXiv 2305.15798); `none` in TOML, which has no null.
    #[serde(deserialize_with = "unless_none")]
    pub mid_block_type: Option<String>,
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
    /// Whether attention logits and softmax are computed in `f32` where the model is in half precision.
    pub upcast_attention: Option<bool>,
    /// `text_time` for the added conditions of SDXL.
    pub addition_embed_type: Option<String>,
    /// Width of the sinusoidal embedding of one time id (SDXL).
    pub addition_time_embed_dim: Option<usize>,
    /// Width of the pooled text and the embeddings of all time ids together (SDXL).
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

fn unless_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name: Option<String> = Option::deserialize(deserializer)?;
    Ok(name.filter(|name| name != "none"))
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
            mid_block_type: Some("UNetMidBlock2DCrossAttn".to_owned()),
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
            upcast_attention: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
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
        let or_one = |size: Option<usize>| size.unwrap_or(1);
        let (time, all) = (
            self.addition_time_embed_dim,
            self.projection_class_embeddings_input_dim,
        );
        require_sizes(&[
            ("number of block_out_channels", levels, LEVELS),
            ("in_channels", self.in_channels, WIDTHS),
            ("out_channels", self.out_channels, WIDTHS),
            ("sample_size", or_one(self.sample_size), WIDTHS),
            ("layers_per_block", self.layers_per_block, LAYERS),
            ("norm_num_groups", self.norm_num_groups, WIDTHS),
            ("cross_attention_dim", self.cross_attention_dim, WIDTHS),
            ("addition_time_embed_dim", or_one(time), WIDTHS),
            ("projection_class_embeddings_input_dim", or_one(all), WIDTHS),
        ])?;
        self.added()?;
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
        if let Some(name) = &self.mid_block_type
            && name != "UNetMidBlock2DCrossAttn"
        {
            return Err(ConfigError::invalid(
                "mid_block_type",
                "UNetMidBlock2DCrossAttn or null",
                name,
            ));
        }
        if self.act_fn != Activation::Silu {
            return Err(ConfigError::invalid(
                "act_fn",
                "silu",
                format!("{:?}", self.act_fn),
            ));
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            require_sizes(&[("block_out_channels", channels, WIDTHS)])?;
            // Every residual block has as many.
            let most = LAYERS.end() / self.layers_per_block;
            let blocks = self.transformer_layers(level)?;
            require_sizes(&[("transformer_layers_per_block", blocks, 0..=most)])?;
            if !channels.is_multiple_of(self.norm_num_groups) {
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

    /// Widths of the pooled text and of the embedding of one time id, if the model has added conditions.
    ///
    /// # Errors
    ///
    /// If the fields of added conditions do not fit together, or are of another kind than SDXL's.
    pub fn added(&self) -> Result<Option<(usize, usize)>, ConfigError> {
        match self.addition_embed_type.as_deref() {
            None => return Ok(None),
            Some("text_time") => {}
            Some(other) => {
                return Err(ConfigError::invalid(
                    "addition_embed_type",
                    "null or text_time",
                    other,
                ));
            }
        }
        let missing = |field| ConfigError::invalid(field, "a number, with text_time", "null");
        let time = self
            .addition_time_embed_dim
            .ok_or_else(|| missing("addition_time_embed_dim"))?;
        let field = "projection_class_embeddings_input_dim";
        let all = self
            .projection_class_embeddings_input_dim
            .ok_or_else(|| missing(field))?;
        let times = TimeIds::COUNT * time;
        match all.checked_sub(times) {
            Some(text) if text > 0 => Ok(Some((text, time))),
            _ => {
                let expected = format!("more than {times}, the width of all time ids");
                Err(ConfigError::invalid(field, expected, all))
            }
        }
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

    fn transformer_layers(&self, level: usize) -> Result<usize, ConfigError> {
        let layers = self.transformer_layers_per_block.get(level);
        layers.ok_or_else(|| {
            ConfigError::invalid(
                "transformer_layers_per_block",
                "one value for every level",
                level,
            )
        })
    }

    fn block(&self, level: usize, cross: bool) -> Result<UNetBlockConfig, ConfigError> {
        let channels = *self.block_out_channels.get(level).ok_or_else(|| {
            ConfigError::invalid("block_out_channels", "one value for every level", level)
        })?;
        let attention = Transformer2DModelConfig {
            channels,
            heads: self.heads(level)?,
            num_layers: self.transformer_layers(level)?,
            cross_attention_dim: self.cross_attention_dim,
            norm_num_groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
            upcast_attention: self.upcast_attention.unwrap_or_default(),
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
        let mid_block = match &self.mid_block_type {
            Some(_) => Some(self.block(levels - 1, true)?.mid(device)),
            None => None,
        };
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
        let added = self.added()?;
        let add_embedding = added.map(|(text, time)| {
            let inputs = text + TimeIds::COUNT * time;
            TimestepEmbedding::init(inputs, self.temb_channels(), device)
        });
        Ok(UNet2DConditionModel {
            conv_in: LoraConv2dConfig::new(self.in_channels, top, 3).init(device),
            time_embedding: TimestepEmbedding::init(top, self.temb_channels(), device),
            add_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::init(self.norm_num_groups, top, self.norm_eps, device),
            conv_out: LoraConv2dConfig::new(top, self.out_channels, 3).init(device),
            time_channels: top,
            added_channels: added,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        })
    }
}
