//! BLIP's vision tower (arXiv 2201.12086), as transformers' `BlipVisionModel`.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use selma_lora::nn::{LoraLinear, LoraLinearConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clip_encoder::ClipMlp;
use super::clip_vision::{CHANNELS, patches};
use crate::config::{ConfigError, LAYERS, WIDTHS, require_default, require_heads, require_sizes};
use crate::nn::{Activation, AttentionOptions, LayerNorm, attention};

/// `vision_config` of a BLIP's `config.json`, with transformers' defaults (`BlipVisionConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlipVisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Inner width of the feed-forward networks.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Height and width of a picture in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: Activation,
    /// Epsilon of all normalisations.
    pub layer_norm_eps: f64,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for BlipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
            rest: Map::new(),
        }
    }
}

impl BlipVisionConfig {
    /// Checks that the tower can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(&self.rest, &[("attention_dropout", Value::from(0.0))])?;
        require_sizes(&[
            ("hidden_size", self.hidden_size, WIDTHS),
            ("intermediate_size", self.intermediate_size, WIDTHS),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("image_size", self.image_size, WIDTHS),
            ("patch_size", self.patch_size, 1..=self.image_size),
        ])?;
        require_heads(self.num_attention_heads, self.hidden_size)
    }

    /// The tower, its weights drawn only if none are loaded.
    pub(super) fn tower(&self, device: &Device) -> BlipVisionModel {
        let (width, patch) = (self.hidden_size, self.patch_size);
        let positions = (self.image_size / patch).pow(2) + 1;
        let linear = |input, output| LoraLinearConfig::new(input, output).init(device);
        let norm = || LayerNorm::init(width, self.layer_norm_eps, device);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let layer = || BlipVisionLayer {
            layer_norm1: norm(),
            self_attn: BlipVisionAttention {
                qkv: linear(width, 3 * width),
                projection: linear(width, width),
                heads: self.num_attention_heads,
            },
            layer_norm2: norm(),
            mlp: ClipMlp {
                fc1: linear(width, self.intermediate_size),
                fc2: linear(self.intermediate_size, width),
                activation: self.hidden_act,
            },
        };
        BlipVisionModel {
            embeddings: BlipVisionEmbeddings {
                class_embedding: normal.init([1, 1, width], device),
                patch_embedding: BlipPatchEmbedding {
                    weight: normal.init([width, CHANNELS, patch, patch], device),
                    bias: Initializer::Zeros.init([width], device),
                },
                position_embedding: normal.init([1, positions, width], device),
            },
            encoder: BlipVisionEncoder {
                layers: (0..self.num_hidden_layers).map(|_| layer()).collect(),
            },
            post_layernorm: norm(),
        }
    }
}

/// A linear map of each patch: a convolution whose stride is its size.
#[derive(Module, Debug)]
pub struct BlipPatchEmbedding {
    /// `[hidden_size, 3, patch_size, patch_size]`.
    pub weight: Param<Tensor<4>>,
    /// `[hidden_size]`.
    pub bias: Param<Tensor<1>>,
}

/// Patches, positions, and what stands for the whole picture.
#[derive(Module, Debug)]
pub struct BlipVisionEmbeddings {
    /// `[1, 1, hidden_size]`: goes before the patches.
    pub class_embedding: Param<Tensor<3>>,
    /// From pixels to patches.
    pub patch_embedding: BlipPatchEmbedding,
    /// `[1, 1 + patches, hidden_size]`.
    pub position_embedding: Param<Tensor<3>>,
}

/// Attention of all patches to all.
#[derive(Module, Debug)]
pub struct BlipVisionAttention {
    /// Queries, keys and values behind each other.
    pub qkv: LoraLinear,
    /// Output.
    pub projection: LoraLinear,
    /// Number of heads.
    pub heads: usize,
}

impl BlipVisionAttention {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = input.dims();
        let options = AttentionOptions {
            causal: false,
            upcast: true,
        };
        let all = self.qkv.forward(input);
        let part = |index: usize| {
            all.clone()
                .narrow(2, index * width, width)
                .reshape([batch, length, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let attended = attention(part(0), part(1), part(2), options);
        self.projection
            .forward(attended.swap_dims(1, 2).reshape([batch, length, width]))
    }
}

/// One layer.
#[derive(Module, Debug)]
pub struct BlipVisionLayer {
    /// Before the attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention.
    pub self_attn: BlipVisionAttention,
    /// Before the feed-forward network.
    pub layer_norm2: LayerNorm,
    /// Feed-forward network.
    pub mlp: ClipMlp,
}

impl BlipVisionLayer {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let normed = self.layer_norm1.forward(input.clone());
        let hidden = self.self_attn.forward(normed) + input;
        let normed = self.layer_norm2.forward(hidden.clone());
        self.mlp.forward(normed) + hidden
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BlipVisionEncoder {
    /// From the bottom.
    pub layers: Vec<BlipVisionLayer>,
}

/// The vision tower.
#[derive(Module, Debug)]
pub struct BlipVisionModel {
    /// Patches and positions.
    pub embeddings: BlipVisionEmbeddings,
    /// Layers.
    pub encoder: BlipVisionEncoder,
    /// After the layers, of every patch.
    pub post_layernorm: LayerNorm,
}

impl BlipVisionModel {
    /// What is seen in pictures: one vector for the whole and one a patch.
    ///
    /// # Shapes
    ///
    /// - pixels: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, 1 + patches, hidden_size]`
    ///
    /// # Panics
    ///
    /// If the pictures are of another size.
    #[must_use]
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let embeddings = &self.embeddings;
        let patch = &embeddings.patch_embedding;
        let patches = patches(pixels, patch.weight.val()) + patch.bias.val().unsqueeze::<3>();
        let [batch, _, width] = patches.dims();
        let class = embeddings.class_embedding.val().expand([batch, 1, width]);
        let mut hidden = Tensor::cat(vec![class, patches], 1) + embeddings.position_embedding.val();
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden);
        }
        self.post_layernorm.forward(hidden)
    }
}
