//! The layers of BERT (arXiv 1810.04805), of which BLIP's text networks and sentence encoders are made.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use selma_lora::nn::{LoraLinear, LoraLinearConfig};

use crate::config::{ConfigError, LAYERS, WIDTHS, require_heads, require_sizes};
use crate::nn::{Activation, AttentionOptions, Embedding, LayerNorm, attention, biased_attention};

/// The sizes of a BERT, as its `config.json` names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct BertSizes {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) max_position_embeddings: usize,
    /// Token types, if it has any.
    pub(super) type_vocab_size: Option<usize>,
    pub(super) hidden_act: Activation,
    pub(super) layer_norm_eps: f64,
}

impl BertSizes {
    /// Refuses sizes that no network can have.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let positions = self.max_position_embeddings;
        require_sizes(&[
            ("vocab_size", self.vocab_size, WIDTHS),
            ("hidden_size", self.hidden_size, WIDTHS),
            ("intermediate_size", self.intermediate_size, WIDTHS),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("max_position_embeddings", positions, WIDTHS),
            ("type_vocab_size", self.type_vocab_size.unwrap_or(1), WIDTHS),
        ])?;
        require_heads(self.num_attention_heads, self.hidden_size)
    }

    /// What makes vectors of tokens.
    pub(super) fn embeddings(&self, device: &Device) -> BertEmbeddings {
        let table = |entries| Embedding::init(entries, self.hidden_size, device);
        BertEmbeddings {
            word_embeddings: table(self.vocab_size),
            token_type_embeddings: self.type_vocab_size.map(table),
            position_embeddings: table(self.max_position_embeddings),
            layer_norm: self.norm(device),
        }
    }

    /// The stack of layers, which also attend to vectors of width `seen`, if there are any.
    pub(super) fn layers(&self, seen: Option<usize>, device: &Device) -> Vec<BertLayer> {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let layer = || BertLayer {
            attention: self.attention(width, device),
            crossattention: seen.map(|seen| self.attention(seen, device)),
            intermediate: BertIntermediate {
                dense: LoraLinearConfig::new(width, inner).init(device),
                activation: self.hidden_act,
            },
            output: self.output(inner, device),
        };
        (0..self.num_hidden_layers).map(|_| layer()).collect()
    }

    /// A linear map to the network's width, and a normalisation.
    pub(super) fn output(&self, input: usize, device: &Device) -> BertOutput {
        BertOutput {
            dense: LoraLinearConfig::new(input, self.hidden_size).init(device),
            layer_norm: self.norm(device),
        }
    }

    fn attention(&self, seen: usize, device: &Device) -> BertAttention {
        let width = self.hidden_size;
        let linear = |input| LoraLinearConfig::new(input, width).init(device);
        BertAttention {
            self_attention: BertSelfAttention {
                query: linear(width),
                key: linear(seen),
                value: linear(seen),
                heads: self.num_attention_heads,
            },
            output: self.output(width, device),
        }
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm::init(self.hidden_size, self.layer_norm_eps, device)
    }
}

/// The key of a field in the files of transformers and of BLIP's own program, which have names that no field can have here.
pub(crate) fn bert_name(path: &str) -> String {
    path.replace(".self_attention.", ".self.")
        .replace(".layer_norm.", ".LayerNorm.")
}

/// Embeddings of tokens, of their types and of their positions.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// `[vocab_size, hidden_size]`.
    pub word_embeddings: Embedding,
    /// `[type_vocab_size, hidden_size]`, of which the first is that of a text alone.
    pub token_type_embeddings: Option<Embedding>,
    /// `[max_position_embeddings, hidden_size]`.
    pub position_embeddings: Embedding,
    /// Of their sum; `LayerNorm` in the files.
    pub layer_norm: LayerNorm,
}

impl BertEmbeddings {
    /// Vectors of tokens at positions: both `[batch, length]`, or positions `[1, length]`.
    pub(super) fn forward(&self, ids: Tensor<2, Int>, positions: Tensor<2, Int>) -> Tensor<3> {
        let mut embedded = self.word_embeddings.forward(ids);
        if let Some(types) = &self.token_type_embeddings {
            let first = types.weight.val().narrow(0, 0, 1);
            embedded = embedded + first.unsqueeze::<3>();
        }
        self.layer_norm
            .forward(embedded + self.position_embeddings.forward(positions))
    }
}

/// Positions from 0, for texts of one length: `[1, length]`.
pub(super) fn positions(ids: &Tensor<2, Int>) -> Tensor<2, Int> {
    let [_, length] = ids.dims();
    let positions: Vec<i32> = (0..length as i32).collect();
    Tensor::from_data(TensorData::new(positions, [1, length]), &ids.device())
}

/// How the places of a text attend to each other.
#[derive(Debug, Clone)]
pub(super) enum Within {
    /// Each to all.
    All,
    /// Each to itself and those before it.
    Causal,
    /// Each to all, with a bias of the scores by distance: `[1, heads, length, length]`.
    Biased(Box<Tensor<4>>),
}

/// Projections of what attends and what is attended to.
#[derive(Module, Debug)]
pub struct BertSelfAttention {
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
pub struct BertOutput {
    /// To the network's width.
    pub dense: LoraLinear,
    /// `LayerNorm` in the files.
    pub layer_norm: LayerNorm,
}

impl BertOutput {
    fn forward(&self, inner: Tensor<3>, hidden: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dense.forward(inner) + hidden)
    }
}

/// Attention with the normalisation behind it.
#[derive(Module, Debug)]
pub struct BertAttention {
    /// The attention; `self` in the files.
    pub self_attention: BertSelfAttention,
    /// Output, added to the input and normalised.
    pub output: BertOutput,
}

impl BertAttention {
    /// `hidden` attends to `seen`.
    fn forward(&self, hidden: Tensor<3>, seen: Tensor<3>, within: &Within) -> Tensor<3> {
        let projections = &self.self_attention;
        let [_, _, width] = hidden.dims();
        let split = |projected: Tensor<3>| {
            let [batch, length, width] = projected.dims();
            let heads = projections.heads;
            projected
                .reshape([batch, length, heads, width / heads])
                .swap_dims(1, 2)
        };
        let query = split(projections.query.forward(hidden.clone()));
        let key = split(projections.key.forward(seen.clone()));
        let value = split(projections.value.forward(seen));
        let attended = match within {
            Within::Biased(bias) => biased_attention(query, key, value, (**bias).clone()),
            Within::All | Within::Causal => {
                let options = AttentionOptions {
                    causal: matches!(within, Within::Causal),
                    upcast: true,
                };
                attention(query, key, value, options)
            }
        };
        let [batch, _, length, _] = attended.dims();
        let attended = attended.swap_dims(1, 2).reshape([batch, length, width]);
        self.output.forward(attended, hidden)
    }
}

/// To the inner width of the feed-forward network.
#[derive(Module, Debug)]
pub struct BertIntermediate {
    /// The linear map.
    pub dense: LoraLinear,
    /// Behind it.
    #[module(skip)]
    pub activation: Activation,
}

/// One layer.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// Within the text.
    pub attention: BertAttention,
    /// To what is seen, in networks that see something.
    pub crossattention: Option<BertAttention>,
    /// First half of the feed-forward network.
    pub intermediate: BertIntermediate,
    /// Second half, added to its input and normalised.
    pub output: BertOutput,
}

impl BertLayer {
    /// `[batch, length, hidden_size]` as its input.
    pub(super) fn forward(
        &self,
        input: Tensor<3>,
        within: &Within,
        seen: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let mut hidden = self.attention.forward(input.clone(), input, within);
        if let (Some(attention), Some(seen)) = (&self.crossattention, seen) {
            hidden = attention.forward(hidden, seen.clone(), &Within::All);
        }
        let inner = self.intermediate.dense.forward(hidden.clone());
        let inner = self.intermediate.activation.forward(inner);
        self.output.forward(inner, hidden)
    }
}
