//! CLIP's text encoder (arXiv 2103.00020), as transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraLinear, LoraLinearConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clip_encoder::{ClipEncoder, ClipEncoderConfig};
use crate::config::{ConfigError, LAYERS, WIDTHS, require_default, require_heads, require_sizes};
use crate::nn::{Activation, Embedding, LayerNorm};

/// The architecture that ends in a projection.
const WITH_PROJECTION: &str = "CLIPTextModelWithProjection";
/// An `eos_token_id` that stands for "the largest id", as in files older than the fix of it.
const LARGEST: u32 = 2;

/// `text_encoder/config.json`, with transformers' defaults (`CLIPTextConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// `CLIPTextModel` or `CLIPTextModelWithProjection`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Inner width of the feed-forward networks.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Width of the projected pooled text, of the architecture with a projection.
    pub projection_dim: usize,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: Activation,
    /// Epsilon of all normalisations.
    pub layer_norm_eps: f64,
    /// The token at which a text is pooled; 2 and none stand for the largest id.
    pub eos_token_id: Option<u32>,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: Vec::new(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            projection_dim: 512,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: Some(49407),
            rest: Map::new(),
        }
    }
}

impl ClipTextConfig {
    /// Checks that the model can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(&self.rest, &[("attention_dropout", Value::from(0.0))])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size, WIDTHS),
            ("hidden_size", self.hidden_size, WIDTHS),
            ("intermediate_size", self.intermediate_size, WIDTHS),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("projection_dim", self.projection_dim, WIDTHS),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                WIDTHS,
            ),
        ])?;
        require_heads(self.num_attention_heads, self.hidden_size)
    }

    /// Whether the pooled text is projected.
    #[must_use]
    pub fn has_projection(&self) -> bool {
        self.architectures
            .iter()
            .any(|name| name == WITH_PROJECTION)
    }

    /// The model, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<ClipTextModel, ConfigError> {
        self.validate()?;
        let projection = || self.projection(self.projection_dim, device);
        Ok(ClipTextModel {
            text_model: self.transformer(device),
            text_projection: self.has_projection().then(projection),
        })
    }

    /// Embeddings, layers and the last normalisation.
    pub(super) fn transformer(&self, device: &Device) -> ClipTextTransformer {
        let width = self.hidden_size;
        let positions = self.max_position_embeddings;
        let encoder = ClipEncoderConfig {
            hidden_size: width,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            causal: true,
        };
        ClipTextTransformer {
            embeddings: ClipTextEmbeddings {
                token_embedding: Embedding::init(self.vocab_size, width, device),
                position_embedding: Embedding::init(positions, width, device),
            },
            encoder: encoder.init(device),
            final_layer_norm: LayerNorm::init(width, self.layer_norm_eps, device),
            end_token: self.eos_token_id.filter(|&id| id != LARGEST),
        }
    }

    /// The projection of the pooled text to `width`.
    pub(super) fn projection(&self, width: usize, device: &Device) -> LoraLinear {
        LoraLinearConfig::new(self.hidden_size, width)
            .with_bias(false)
            .init(device)
    }
}

/// Token and position embeddings.
#[derive(Module, Debug)]
pub struct ClipTextEmbeddings {
    /// `[vocab_size, hidden_size]`.
    pub token_embedding: Embedding,
    /// `[max_position_embeddings, hidden_size]`.
    pub position_embedding: Embedding,
}

/// Embeddings, layers and the last normalisation.
#[derive(Module, Debug)]
pub struct ClipTextTransformer {
    /// Token and position embeddings.
    pub embeddings: ClipTextEmbeddings,
    /// Layers.
    pub encoder: ClipEncoder,
    /// After the last layer.
    pub final_layer_norm: LayerNorm,
    /// The token at which a text is pooled; the largest id if none.
    #[module(skip)]
    pub end_token: Option<u32>,
}

lora_layers!(ClipTextTransformer { encoder });

/// CLIP's text encoder.
#[derive(Module, Debug)]
pub struct ClipTextModel {
    /// The network; the field is a level of the published checkpoints.
    pub text_model: ClipTextTransformer,
    /// Of the pooled text, in the architecture with a projection.
    pub text_projection: Option<LoraLinear>,
}

lora_layers!(ClipTextModel {
    text_model,
    text_projection
});

/// What the text encoder gives.
#[derive(Debug, Clone)]
pub struct ClipTextOutput {
    /// After the final normalisation: `[batch, length, hidden_size]`.
    pub last_hidden_state: Tensor<3>,
    /// The input of the first layer and the output of each, without the final normalisation.
    pub hidden_states: Vec<Tensor<3>>,
    /// The last hidden state at the end token, projected where there is a projection: `[batch, hidden_size]` or
    /// `[batch, projection_dim]`.
    pub pooled: Tensor<2>,
}

impl ClipTextModel {
    /// Encodes token ids.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`, `length` at most `max_position_embeddings`
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions.
    #[must_use]
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> ClipTextOutput {
        let output = self.text_model.forward(input_ids);
        match &self.text_projection {
            None => output,
            Some(projection) => ClipTextOutput {
                pooled: projection.forward(output.pooled),
                ..output
            },
        }
    }
}

impl ClipTextTransformer {
    /// What the model gives, without its projection.
    pub(super) fn forward(&self, input_ids: Tensor<2, Int>) -> ClipTextOutput {
        let [_, length] = input_ids.dims();
        let device = input_ids.device();
        let embeddings = &self.embeddings;
        let positions: Vec<i32> = (0..length as i32).collect();
        let positions =
            Tensor::<2, Int>::from_data(TensorData::new(positions, [1, length]), &device);
        let mut hidden = embeddings.token_embedding.forward(input_ids.clone())
            + embeddings.position_embedding.forward(positions.clone());
        let mut hidden_states = vec![hidden.clone()];
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden);
            hidden_states.push(hidden.clone());
        }
        let last_hidden_state = self.final_layer_norm.forward(hidden);
        let ends = self.ends(input_ids, positions);
        let pooled = at(last_hidden_state.clone(), ends);
        ClipTextOutput {
            last_hidden_state,
            hidden_states,
            pooled,
        }
    }

    /// The first position of each text's end token: `[batch, 1]`. Texts may be filled up with end tokens.
    fn ends(&self, input_ids: Tensor<2, Int>, positions: Tensor<2, Int>) -> Tensor<2, Int> {
        let [_, length] = input_ids.dims();
        let is_end = match self.end_token {
            Some(id) => input_ids.equal_elem(id),
            None => {
                let largest = input_ids.clone().max_dim(1);
                input_ids.clone().equal(largest.expand(input_ids.dims()))
            }
        };
        // No two values are equal, for backends differ in which of several largest they choose.
        let earlier = positions.neg().add_scalar(length as i32 - 1);
        (is_end.int().mul_scalar(length as i32) + earlier).argmax(1)
    }
}

/// The vectors of `[batch, length, width]` at one position a text, `[batch, 1]`.
fn at(hidden: Tensor<3>, positions: Tensor<2, Int>) -> Tensor<2> {
    let [batch, _, width] = hidden.dims();
    let indices = positions.reshape([batch, 1, 1]).expand([batch, 1, width]);
    hidden.gather(1, indices).reshape([batch, width])
}
