//! BERT (arXiv 1810.04805) and MPNet (arXiv 2004.09297) as readers of texts, as transformers' `BertModel` and `MPNetModel`.
//!
//! MPNet is a BERT whose attention has a bias by distance, whose positions begin with 2, and which knows no types of tokens.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bert_layers::{BertEmbeddings, BertLayer, BertSizes, Within, bert_name, positions};
use crate::config::{ConfigError, require_default};
use crate::nn::{Activation, Embedding};

/// MPNet's token that fills up texts, and the position of such tokens (`MPNetEmbeddings.padding_idx`).
const PADDING: i32 = 1;
/// Buckets of distances (`MPNetEncoder.compute_position_bias`): half of them for either direction.
const BUCKETS: usize = 32;

/// The `config.json` of a BERT or an MPNet, with transformers' defaults for BERT (`BertConfig`, `MPNetConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// `bert` or `mpnet`.
    pub model_type: String,
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
    /// Positions; MPNet uses none of the first two.
    pub max_position_embeddings: usize,
    /// Types of tokens, of BERT alone.
    pub type_vocab_size: usize,
    /// Buckets of distances, of MPNet alone.
    pub relative_attention_num_buckets: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: Activation,
    /// Epsilon of all normalisations.
    pub layer_norm_eps: f64,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            vocab_size: 30522,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            relative_attention_num_buckets: BUCKETS,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            rest: Map::new(),
        }
    }
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BertKind {
    Bert,
    Mpnet,
}

impl BertKind {
    /// The key of a field in the files.
    pub(crate) fn name(self, path: &str) -> String {
        const MPNET: [(&str, &str); 5] = [
            (".attention.self_attention.query.", ".attention.attn.q."),
            (".attention.self_attention.key.", ".attention.attn.k."),
            (".attention.self_attention.value.", ".attention.attn.v."),
            (".attention.output.dense.", ".attention.attn.o."),
            (".attention.output.layer_norm.", ".attention.layer_norm."),
        ];
        let renamed = |name: String, (own, other): &(&str, &str)| name.replace(own, other);
        bert_name(&match self {
            Self::Bert => path.to_owned(),
            Self::Mpnet => MPNET.iter().fold(path.to_owned(), renamed),
        })
    }
}

impl BertConfig {
    /// Which of the two it is.
    pub(crate) fn kind(&self) -> Result<BertKind, ConfigError> {
        match self.model_type.as_str() {
            "bert" => Ok(BertKind::Bert),
            "mpnet" => Ok(BertKind::Mpnet),
            found => Err(ConfigError::invalid(
                "model_type",
                "bert or mpnet",
                format!("{found:?}"),
            )),
        }
    }

    /// Checks that the network can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let kind = self.kind()?;
        require_default(
            &self.rest,
            &[
                ("is_decoder", Value::from(false)),
                ("add_cross_attention", Value::from(false)),
                ("position_embedding_type", Value::from("absolute")),
            ],
        )?;
        self.sizes(kind).validate()?;
        let (buckets, places) = (
            self.relative_attention_num_buckets,
            self.max_position_embeddings,
        );
        if kind == BertKind::Mpnet && buckets != BUCKETS {
            let field = "relative_attention_num_buckets";
            return Err(ConfigError::invalid(field, BUCKETS, buckets));
        }
        if kind == BertKind::Mpnet && self.longest(kind) == 0 {
            let expected = "at least 3, of which MPNet does not use the first two";
            return Err(ConfigError::invalid(
                "max_position_embeddings",
                expected,
                places,
            ));
        }
        Ok(())
    }

    /// The longest text in tokens.
    pub(crate) fn longest(&self, kind: BertKind) -> usize {
        let unused = match kind {
            BertKind::Bert => 0,
            BertKind::Mpnet => PADDING as usize + 1,
        };
        self.max_position_embeddings.saturating_sub(unused)
    }

    /// The network, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<BertModel, ConfigError> {
        self.validate()?;
        let kind = self.kind()?;
        let sizes = self.sizes(kind);
        let bias = || Embedding::init(BUCKETS, self.num_attention_heads, device);
        Ok(BertModel {
            embeddings: sizes.embeddings(device),
            encoder: BertEncoder {
                layer: sizes.layers(None, device),
                relative_attention_bias: (kind == BertKind::Mpnet).then(bias),
            },
        })
    }

    fn sizes(&self, kind: BertKind) -> BertSizes {
        BertSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: (kind == BertKind::Bert).then_some(self.type_vocab_size),
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// From the bottom.
    pub layer: Vec<BertLayer>,
    /// `[buckets, heads]`, of MPNet alone.
    pub relative_attention_bias: Option<Embedding>,
}

/// BERT or MPNet, which reads texts.
#[derive(Module, Debug)]
pub struct BertModel {
    /// Embeddings of tokens and positions.
    pub embeddings: BertEmbeddings,
    /// Layers.
    pub encoder: BertEncoder,
}

impl BertModel {
    /// The last hidden state.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`, texts of one length
    /// - output: `[batch, length, hidden_size]`
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions.
    #[must_use]
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let (positions, within) = match &self.encoder.relative_attention_bias {
            None => (positions(&input_ids), Within::All),
            Some(table) => {
                let counted = input_ids.clone().not_equal_elem(PADDING).int();
                let positions = counted.clone().cumsum(1) * counted + PADDING;
                let [_, length] = input_ids.dims();
                let bias = bias(table, length, &input_ids.device());
                (positions, Within::Biased(Box::new(bias)))
            }
        };
        let mut hidden = self.embeddings.forward(input_ids, positions);
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden, &within, None);
        }
        hidden
    }
}

/// What is added to the scores of places: `[1, heads, length, length]`.
fn bias(table: &Embedding, length: usize, device: &Device) -> Tensor<4> {
    let places = 0..length as i32;
    let rows = places
        .clone()
        .flat_map(|from| places.clone().map(move |to| bucket(to - from)));
    let buckets = TensorData::new(rows.collect::<Vec<i32>>(), [length, length]);
    // [from, to, heads]
    let bias = table.forward(Tensor::<2, Int>::from_data(buckets, device));
    bias.permute([2, 0, 1]).unsqueeze()
}

/// The bucket of a distance (`MPNetEncoder.relative_position_bucket`): the nearest have one each, the others two for each doubling up to 128.
fn bucket(distance: i32) -> i32 {
    const SIDE: u32 = BUCKETS as u32 / 2;
    const EXACT: u32 = SIDE / 2;
    let far = distance.unsigned_abs();
    let bucket = if far < EXACT {
        far
    } else {
        // floor(2 log2(far / EXACT)), in whole numbers.
        EXACT + (u64::from(far).pow(2) / u64::from(EXACT.pow(2))).ilog2()
    };
    let side = if distance > 0 { SIDE } else { 0 };
    (side + bucket.min(SIDE - 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MPNetEncoder.relative_position_bucket` of transformers 5.24 at the distances where it changes.
    #[test]
    fn distances_fall_into_the_buckets_of_transformers() {
        let steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for (number, first) in steps.into_iter().enumerate() {
            let number = number as i32;
            assert_eq!(bucket(-first), number, "{first}");
            assert_eq!(bucket(-first - i32::from(first > 7)), number, "{first}");
            if first > 0 {
                assert_eq!(bucket(1 - first), number - 1, "{first}");
                assert_eq!(bucket(first), number + 16, "{first}");
            }
        }
        assert_eq!((bucket(-600), bucket(600)), (15, 31));
    }
}
