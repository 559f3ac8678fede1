//! CLIP's text encoder (arXiv 2103.00020), as transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraLinear, LoraLinearConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{ConfigError, LAYERS, WIDTHS, require_default, require_sizes};
use crate::nn::{Activation, AttentionOptions, Embedding, LayerNorm, attention};

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
        if self.num_attention_heads == 0
            || !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            return Err(ConfigError::invalid(
                "num_attention_heads",
                format!("a divisor of hidden_size {}", self.hidden_size),
                self.num_attention_heads,
            ));
        }
        Ok(())
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
        let width = self.hidden_size;
        let linear = |input, output| LoraLinearConfig::new(input, output).init(device);
        let norm = || LayerNorm::init(width, self.layer_norm_eps, device);
        let layer = || ClipEncoderLayer {
            layer_norm1: norm(),
            self_attn: ClipAttention {
                q_proj: linear(width, width),
                k_proj: linear(width, width),
                v_proj: linear(width, width),
                out_proj: linear(width, width),
                heads: self.num_attention_heads,
            },
            layer_norm2: norm(),
            mlp: ClipMlp {
                fc1: linear(width, self.intermediate_size),
                fc2: linear(self.intermediate_size, width),
                activation: self.hidden_act,
            },
        };
        Ok(ClipTextModel {
            text_model: ClipTextTransformer {
                embeddings: ClipTextEmbeddings {
                    token_embedding: Embedding::init(self.vocab_size, width, device),
                    position_embedding: Embedding::init(
                        self.max_position_embeddings,
                        width,
                        device,
                    ),
                },
                encoder: ClipEncoder {
                    layers: (0..self.num_hidden_layers).map(|_| layer()).collect(),
                },
                final_layer_norm: norm(),
            },
            text_projection: self.has_projection().then(|| {
                LoraLinearConfig::new(width, self.projection_dim)
                    .with_bias(false)
                    .init(device)
            }),
            end_token: self.eos_token_id.filter(|&id| id != LARGEST),
        })
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

/// Causal self-attention.
#[derive(Module, Debug)]
pub struct ClipAttention {
    /// Queries.
    pub q_proj: LoraLinear,
    /// Keys.
    pub k_proj: LoraLinear,
    /// Values.
    pub v_proj: LoraLinear,
    /// Output.
    pub out_proj: LoraLinear,
    /// Number of heads.
    pub heads: usize,
}

lora_layers!(ClipAttention {
    q_proj,
    k_proj,
    v_proj,
    out_proj
});

impl ClipAttention {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = input.dims();
        let split = |projected: Tensor<3>| {
            projected
                .reshape([batch, length, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let options = AttentionOptions {
            causal: true,
            upcast: true,
        };
        let attended = attention(
            split(self.q_proj.forward(input.clone())),
            split(self.k_proj.forward(input.clone())),
            split(self.v_proj.forward(input)),
            options,
        );
        self.out_proj
            .forward(attended.swap_dims(1, 2).reshape([batch, length, width]))
    }
}

/// The feed-forward network.
#[derive(Module, Debug)]
pub struct ClipMlp {
    /// To the inner width.
    pub fc1: LoraLinear,
    /// Back.
    pub fc2: LoraLinear,
    /// Between them.
    #[module(skip)]
    pub activation: Activation,
}

lora_layers!(ClipMlp { fc1, fc2 });

/// One layer.
#[derive(Module, Debug)]
pub struct ClipEncoderLayer {
    /// Before the attention.
    pub layer_norm1: LayerNorm,
    /// Causal self-attention.
    pub self_attn: ClipAttention,
    /// Before the feed-forward network.
    pub layer_norm2: LayerNorm,
    /// Feed-forward network.
    pub mlp: ClipMlp,
}

lora_layers!(ClipEncoderLayer { self_attn, mlp });

impl ClipEncoderLayer {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let hidden = self
            .self_attn
            .forward(self.layer_norm1.forward(input.clone()))
            + input;
        let inner = self
            .mlp
            .fc1
            .forward(self.layer_norm2.forward(hidden.clone()));
        self.mlp.fc2.forward(self.mlp.activation.forward(inner)) + hidden
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct ClipEncoder {
    /// From the bottom.
    pub layers: Vec<ClipEncoderLayer>,
}

lora_layers!(ClipEncoder { layers });

/// Embeddings, layers and the last normalisation.
#[derive(Module, Debug)]
pub struct ClipTextTransformer {
    /// Token and position embeddings.
    pub embeddings: ClipTextEmbeddings,
    /// Layers.
    pub encoder: ClipEncoder,
    /// After the last layer.
    pub final_layer_norm: LayerNorm,
}

lora_layers!(ClipTextTransformer { encoder });

/// CLIP's text encoder.
#[derive(Module, Debug)]
pub struct ClipTextModel {
    /// The network; the field is a level of the published checkpoints.
    pub text_model: ClipTextTransformer,
    /// Of the pooled text, in the architecture with a projection.
    pub text_projection: Option<LoraLinear>,
    /// The token at which a text is pooled; the largest id if none.
    #[module(skip)]
    pub end_token: Option<u32>,
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
        let [_, length] = input_ids.dims();
        let device = input_ids.device();
        let embeddings = &self.text_model.embeddings;
        let positions: Vec<i32> = (0..length as i32).collect();
        let positions =
            Tensor::<2, Int>::from_data(TensorData::new(positions, [1, length]), &device);
        let mut hidden = embeddings.token_embedding.forward(input_ids.clone())
            + embeddings.position_embedding.forward(positions.clone());
        let mut hidden_states = vec![hidden.clone()];
        for layer in &self.text_model.encoder.layers {
            hidden = layer.forward(hidden);
            hidden_states.push(hidden.clone());
        }
        let last_hidden_state = self.text_model.final_layer_norm.forward(hidden);
        let ends = self.ends(input_ids, positions);
        let pooled = at(last_hidden_state.clone(), ends);
        ClipTextOutput {
            last_hidden_state,
            hidden_states,
            pooled: match &self.text_projection {
                Some(projection) => projection.forward(pooled),
                None => pooled,
            },
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
