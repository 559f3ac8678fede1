//! BERT with cross attention to a picture or a question (arXiv 2201.12086), as transformers' `BlipTextModel` and `BlipTextLMHeadModel`.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use selma_lora::nn::{LoraLinear, LoraLinearConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{ConfigError, LAYERS, WIDTHS, require_default, require_heads, require_sizes};
use crate::nn::{Activation, AttentionOptions, Embedding, LayerNorm, attention};

/// `text_config` of a BLIP's `config.json`, with transformers' defaults (`BlipTextConfig`), or the `med_config.json` of BLIP's own program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlipTextConfig {
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
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: Activation,
    /// Epsilon of all normalisations.
    pub layer_norm_eps: f64,
    /// The token that an answer begins with.
    pub bos_token_id: u32,
    /// The token that ends an answer.
    pub sep_token_id: u32,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for BlipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: 30522,
            sep_token_id: 102,
            rest: Map::new(),
        }
    }
}

impl BlipTextConfig {
    /// Checks that the network can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(
            &self.rest,
            &[
                ("is_decoder", Value::from(true)),
                ("tie_word_embeddings", Value::from(true)),
            ],
        )?;
        let positions = self.max_position_embeddings;
        require_sizes(&[
            ("vocab_size", self.vocab_size, WIDTHS),
            ("hidden_size", self.hidden_size, WIDTHS),
            ("intermediate_size", self.intermediate_size, WIDTHS),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("max_position_embeddings", positions, WIDTHS),
        ])?;
        require_heads(self.num_attention_heads, self.hidden_size)
    }

    /// Checks the tokens that answers begin and end with.
    pub(super) fn validate_ends(&self) -> Result<(), ConfigError> {
        for (field, id) in [
            ("bos_token_id", self.bos_token_id),
            ("sep_token_id", self.sep_token_id),
        ] {
            if id as usize >= self.vocab_size {
                let expected = format!("below vocab_size {}", self.vocab_size);
                return Err(ConfigError::invalid(field, expected, id));
            }
        }
        Ok(())
    }

    /// The network, which attends to vectors of width `seen`; its weights are drawn only if none are loaded.
    pub(super) fn network(&self, seen: usize, device: &Device) -> BlipTextModel {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let linear = |input, output| LoraLinearConfig::new(input, output).init(device);
        let norm = || LayerNorm::init(width, self.layer_norm_eps, device);
        let output = |input| BlipTextOutput {
            dense: linear(input, width),
            layer_norm: norm(),
        };
        let attention = |seen| BlipTextAttention {
            self_attention: BlipTextSelfAttention {
                query: linear(width, width),
                key: linear(seen, width),
                value: linear(seen, width),
                heads: self.num_attention_heads,
            },
            output: output(width),
        };
        let layer = || BlipTextLayer {
            attention: attention(width),
            crossattention: attention(seen),
            intermediate: BlipTextIntermediate {
                dense: linear(width, inner),
                activation: self.hidden_act,
            },
            output: output(inner),
        };
        BlipTextModel {
            embeddings: BlipTextEmbeddings {
                word_embeddings: Embedding::init(self.vocab_size, width, device),
                position_embeddings: Embedding::init(self.max_position_embeddings, width, device),
                layer_norm: norm(),
            },
            encoder: BlipTextEncoder {
                layer: (0..self.num_hidden_layers).map(|_| layer()).collect(),
            },
        }
    }

    /// The network with a head that names the next token. It attends to what another of its kind made.
    pub(super) fn decoder(&self, device: &Device) -> BlipTextLmHeadModel {
        let width = self.hidden_size;
        BlipTextLmHeadModel {
            bert: self.network(width, device),
            cls: BlipTextHead {
                predictions: BlipTextPredictions {
                    transform: BlipTextOutput {
                        dense: LoraLinearConfig::new(width, width).init(device),
                        layer_norm: LayerNorm::init(width, self.layer_norm_eps, device),
                    },
                    bias: Initializer::Zeros.init([self.vocab_size], device),
                    activation: self.hidden_act,
                },
            },
        }
    }
}

/// The key of a field in the files of transformers and of BLIP's own program, which have names that no field can have here.
pub(crate) fn bert_name(path: &str) -> String {
    path.replace(".self_attention.", ".self.")
        .replace(".layer_norm.", ".LayerNorm.")
}

/// Token and position embeddings.
#[derive(Module, Debug)]
pub struct BlipTextEmbeddings {
    /// `[vocab_size, hidden_size]`.
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden_size]`.
    pub position_embeddings: Embedding,
    /// Of their sum; `LayerNorm` in the files.
    pub layer_norm: LayerNorm,
}

/// Projections of what attends and what is attended to.
#[derive(Module, Debug)]
pub struct BlipTextSelfAttention {
    /// Queries.
    pub query: LoraLinear,
    /// Keys.
    pub key: LoraLinear,
    /// Values.
    pub value: LoraLinear,
    /// Number of heads.
    pub heads: usize,
}

/// A linear map and a normalisation.
#[derive(Module, Debug)]
pub struct BlipTextOutput {
    /// To the network's width.
    pub dense: LoraLinear,
    /// `LayerNorm` in the files.
    pub layer_norm: LayerNorm,
}

/// Attention with the normalisation behind it.
#[derive(Module, Debug)]
pub struct BlipTextAttention {
    /// The attention; `self` in the files.
    pub self_attention: BlipTextSelfAttention,
    /// Output, added to the input and normalised.
    pub output: BlipTextOutput,
}

impl BlipTextAttention {
    /// `hidden` attends to `seen`, or to itself.
    fn forward(&self, hidden: Tensor<3>, seen: Option<Tensor<3>>, causal: bool) -> Tensor<3> {
        let Self {
            self_attention: projections,
            output,
        } = self;
        let [_, _, width] = hidden.dims();
        let split = |projected: Tensor<3>| {
            let [batch, length, width] = projected.dims();
            let heads = projections.heads;
            projected
                .reshape([batch, length, heads, width / heads])
                .swap_dims(1, 2)
        };
        let options = AttentionOptions {
            causal,
            upcast: true,
        };
        let seen = seen.unwrap_or_else(|| hidden.clone());
        let attended = attention(
            split(projections.query.forward(hidden.clone())),
            split(projections.key.forward(seen.clone())),
            split(projections.value.forward(seen)),
            options,
        );
        let [batch, _, length, _] = attended.dims();
        let attended = attended.swap_dims(1, 2).reshape([batch, length, width]);
        output
            .layer_norm
            .forward(output.dense.forward(attended) + hidden)
    }
}

/// To the inner width of the feed-forward network.
#[derive(Module, Debug)]
pub struct BlipTextIntermediate {
    /// The linear map.
    pub dense: LoraLinear,
    /// Behind it.
    #[module(skip)]
    pub activation: Activation,
}

/// One layer.
#[derive(Module, Debug)]
pub struct BlipTextLayer {
    /// Within the text.
    pub attention: BlipTextAttention,
    /// To what is seen.
    pub crossattention: BlipTextAttention,
    /// First half of the feed-forward network.
    pub intermediate: BlipTextIntermediate,
    /// Second half, added to its input and normalised.
    pub output: BlipTextOutput,
}

impl BlipTextLayer {
    fn forward(&self, input: Tensor<3>, seen: Tensor<3>, causal: bool) -> Tensor<3> {
        let hidden = self.attention.forward(input, None, causal);
        let hidden = self.crossattention.forward(hidden, Some(seen), false);
        let inner = self.intermediate.dense.forward(hidden.clone());
        let inner = self.intermediate.activation.forward(inner);
        let output = &self.output;
        output
            .layer_norm
            .forward(output.dense.forward(inner) + hidden)
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BlipTextEncoder {
    /// From the bottom.
    pub layer: Vec<BlipTextLayer>,
}

/// BERT, every layer of which also attends to what is seen.
#[derive(Module, Debug)]
pub struct BlipTextModel {
    /// Token and position embeddings.
    pub embeddings: BlipTextEmbeddings,
    /// Layers.
    pub encoder: BlipTextEncoder,
}

impl BlipTextModel {
    /// The last hidden state.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`, texts of one length
    /// - seen: `[batch, places, width]`
    /// - output: `[batch, length, hidden_size]`
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions, or what is seen is of another width.
    #[must_use]
    pub fn forward(&self, input_ids: Tensor<2, Int>, seen: &Tensor<3>, causal: bool) -> Tensor<3> {
        let [_, length] = input_ids.dims();
        let positions: Vec<i32> = (0..length as i32).collect();
        let positions = TensorData::new(positions, [1, length]);
        let positions = Tensor::<2, Int>::from_data(positions, &input_ids.device());
        let embeddings = &self.embeddings;
        let embedded = embeddings.word_embeddings.forward(input_ids)
            + embeddings.position_embeddings.forward(positions);
        let mut hidden = embeddings.layer_norm.forward(embedded);
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden, seen.clone(), causal);
        }
        hidden
    }
}

/// From a hidden state to the logits of all tokens, by the word embeddings.
#[derive(Module, Debug)]
pub struct BlipTextPredictions {
    /// Before them.
    pub transform: BlipTextOutput,
    /// `[vocab_size]`.
    pub bias: Param<Tensor<1>>,
    /// Between the linear map and the normalisation.
    #[module(skip)]
    pub activation: Activation,
}

/// The head; a level of the published checkpoints.
#[derive(Module, Debug)]
pub struct BlipTextHead {
    /// The network.
    pub predictions: BlipTextPredictions,
}

/// BERT that writes.
#[derive(Module, Debug)]
pub struct BlipTextLmHeadModel {
    /// The network.
    pub bert: BlipTextModel,
    /// The head.
    pub cls: BlipTextHead,
}

impl BlipTextLmHeadModel {
    /// The logits of the token that comes after each text.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`, texts of one length
    /// - seen: `[batch, places, hidden_size]`
    /// - output: `[batch, vocab_size]`
    ///
    /// # Panics
    ///
    /// Those of [`BlipTextModel::forward`].
    #[must_use]
    pub fn next(&self, input_ids: Tensor<2, Int>, seen: &Tensor<3>) -> Tensor<2> {
        let [batch, length] = input_ids.dims();
        let hidden = self.bert.forward(input_ids, seen, true);
        let [_, _, width] = hidden.dims();
        let last = hidden.narrow(1, length - 1, 1).reshape([batch, width]);
        let head = &self.cls.predictions;
        let last = head.activation.forward(head.transform.dense.forward(last));
        let last = head.transform.layer_norm.forward(last);
        let words = self.bert.embeddings.word_embeddings.weight.val();
        last.matmul(words.transpose()) + head.bias.val().unsqueeze::<2>()
    }
}
