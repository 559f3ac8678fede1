//! BERT with cross attention to a picture or a question (arXiv 2201.12086), as transformers' `BlipTextModel` and `BlipTextLMHeadModel`.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bert_layers::{BertEmbeddings, BertLayer, BertOutput, BertSizes, Within, positions};
use crate::config::{ConfigError, require_default};
use crate::nn::Activation;

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
        self.sizes().validate()
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

    fn sizes(&self) -> BertSizes {
        BertSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: None,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }

    /// The network, which attends to vectors of width `seen`; its weights are drawn only if none are loaded.
    pub(super) fn network(&self, seen: usize, device: &Device) -> BlipTextModel {
        let sizes = self.sizes();
        BlipTextModel {
            embeddings: sizes.embeddings(device),
            encoder: BlipTextEncoder {
                layer: sizes.layers(Some(seen), device),
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
                    transform: self.sizes().output(width, device),
                    bias: Initializer::Zeros.init([self.vocab_size], device),
                    activation: self.hidden_act,
                },
            },
        }
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BlipTextEncoder {
    /// From the bottom.
    pub layer: Vec<BertLayer>,
}

/// BERT, every layer of which also attends to what is seen.
#[derive(Module, Debug)]
pub struct BlipTextModel {
    /// Token and position embeddings.
    pub embeddings: BertEmbeddings,
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
        let positions = positions(&input_ids);
        let mut hidden = self.embeddings.forward(input_ids, positions);
        let within = if causal { Within::Causal } else { Within::All };
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden, &within, Some(seen));
        }
        hidden
    }
}

/// From a hidden state to the logits of all tokens, by the word embeddings.
#[derive(Module, Debug)]
pub struct BlipTextPredictions {
    /// Before them.
    pub transform: BertOutput,
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
