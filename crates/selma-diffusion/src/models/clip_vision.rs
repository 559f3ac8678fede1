//! CLIP's vision tower (arXiv 2103.00020), as transformers' `CLIPVisionTransformer`.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use selma_lora::nn::{LoraLinear, LoraLinearConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clip_encoder::{ClipEncoder, ClipEncoderConfig};
use crate::config::{ConfigError, LAYERS, WIDTHS, require_default, require_heads, require_sizes};
use crate::nn::{Activation, Embedding, LayerNorm};

/// Red, green and blue.
pub(super) const CHANNELS: usize = 3;

/// `vision_config` of a CLIP's `config.json`, with transformers' defaults (`CLIPVisionConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
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

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            rest: Map::new(),
        }
    }
}

impl ClipVisionConfig {
    /// Checks that the tower can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(
            &self.rest,
            &[
                ("attention_dropout", Value::from(0.0)),
                ("num_channels", Value::from(CHANNELS)),
            ],
        )?;
        require_sizes(&[
            ("hidden_size", self.hidden_size, WIDTHS),
            ("intermediate_size", self.intermediate_size, WIDTHS),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("image_size", self.image_size, WIDTHS),
            ("patch_size", self.patch_size, 1..=self.image_size),
        ])?;
        require_heads(self.num_attention_heads, self.hidden_size)
    }

    /// Embeddings, layers and both normalisations.
    pub(super) fn transformer(&self, device: &Device) -> ClipVisionTransformer {
        let (width, patch) = (self.hidden_size, self.patch_size);
        let patches = (self.image_size / patch).pow(2);
        let norm = || LayerNorm::init(width, self.layer_norm_eps, device);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let encoder = ClipEncoderConfig {
            hidden_size: width,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            causal: false,
        };
        ClipVisionTransformer {
            embeddings: ClipVisionEmbeddings {
                class_embedding: normal.init([width], device),
                patch_embedding: PatchEmbedding {
                    weight: normal.init([width, CHANNELS, patch, patch], device),
                },
                position_embedding: Embedding::init(patches + 1, width, device),
            },
            pre_layrnorm: norm(),
            encoder: encoder.init(device),
            post_layernorm: norm(),
        }
    }

    /// The projection of the pooled picture to `width`.
    pub(super) fn projection(&self, width: usize, device: &Device) -> LoraLinear {
        LoraLinearConfig::new(self.hidden_size, width)
            .with_bias(false)
            .init(device)
    }
}

/// A linear map of each patch: a convolution whose stride is its size, without a bias.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[hidden_size, 3, patch_size, patch_size]`.
    pub weight: Param<Tensor<4>>,
}

/// A linear map of each patch: `[batch, 3, height, width]` by `[hidden_size, 3, patch_size, patch_size]` to `[batch, patches, hidden_size]`, row by
/// row. What is left at the right and the bottom of whole patches does not count, as in a convolution.
pub(super) fn patches(pixels: Tensor<4>, weight: Tensor<4>) -> Tensor<3> {
    let [width, channels, patch, _] = weight.dims();
    let [batch, _, rows, columns] = pixels.dims();
    let (rows, columns) = (rows / patch, columns / patch);
    let inputs = channels * patch * patch;
    let patches = pixels
        .narrow(2, 0, rows * patch)
        .narrow(3, 0, columns * patch)
        .reshape([batch, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch * rows * columns, inputs]);
    let weight = weight.reshape([width, inputs]).transpose();
    patches
        .matmul(weight)
        .reshape([batch, rows * columns, width])
}

/// Patches, positions, and what stands for the whole picture.
#[derive(Module, Debug)]
pub struct ClipVisionEmbeddings {
    /// `[hidden_size]`: goes before the patches, and becomes the picture's embedding.
    pub class_embedding: Param<Tensor<1>>,
    /// From pixels to patches.
    pub patch_embedding: PatchEmbedding,
    /// `[1 + patches, hidden_size]`.
    pub position_embedding: Embedding,
}

/// The vision tower.
#[derive(Module, Debug)]
pub struct ClipVisionTransformer {
    /// Patches and positions.
    pub embeddings: ClipVisionEmbeddings,
    /// Before the layers; the name is that of the published checkpoints.
    pub pre_layrnorm: LayerNorm,
    /// Layers.
    pub encoder: ClipEncoder,
    /// After the layers, of what stands for the whole picture.
    pub post_layernorm: LayerNorm,
}

impl ClipVisionTransformer {
    /// The pooled pictures.
    ///
    /// # Shapes
    ///
    /// - pixels: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, hidden_size]`
    ///
    /// # Panics
    ///
    /// If the pictures are of another size.
    #[must_use]
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let patches = patches(pixels, self.embeddings.patch_embedding.weight.val());
        let [batch, _, width] = patches.dims();
        let class = self.embeddings.class_embedding.val();
        let class = class.reshape([1, 1, width]).expand([batch, 1, width]);
        let positions = self.embeddings.position_embedding.weight.val();
        let embedded = Tensor::cat(vec![class, patches], 1) + positions.unsqueeze::<3>();
        let mut hidden = self.pre_layrnorm.forward(embedded);
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden);
        }
        let pooled = hidden.narrow(1, 0, 1).reshape([batch, width]);
        self.post_layernorm.forward(pooled)
    }
}
