//! The transformer that both towers of CLIP are: of texts and of pictures.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraLinear, LoraLinearConfig};

use crate::nn::{Activation, AttentionOptions, LayerNorm, attention};

/// What makes up a stack of layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClipEncoderConfig {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) hidden_act: Activation,
    pub(super) layer_norm_eps: f64,
    pub(super) causal: bool,
}

impl ClipEncoderConfig {
    pub(super) fn init(&self, device: &Device) -> ClipEncoder {
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
                causal: self.causal,
            },
            layer_norm2: norm(),
            mlp: ClipMlp {
                fc1: linear(width, self.intermediate_size),
                fc2: linear(self.intermediate_size, width),
                activation: self.hidden_act,
            },
        };
        ClipEncoder {
            layers: (0..self.num_hidden_layers).map(|_| layer()).collect(),
        }
    }
}

/// Self-attention: causal over texts, of all with all over pictures.
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
    /// Whether a position attends to itself and those before it only.
    pub causal: bool,
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
            causal: self.causal,
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

impl ClipMlp {
    pub(super) fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let inner = self.fc1.forward(input);
        self.fc2.forward(self.activation.forward(inner))
    }
}

/// One layer.
#[derive(Module, Debug)]
pub struct ClipEncoderLayer {
    /// Before the attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention.
    pub self_attn: ClipAttention,
    /// Before the feed-forward network.
    pub layer_norm2: LayerNorm,
    /// Feed-forward network.
    pub mlp: ClipMlp,
}

lora_layers!(ClipEncoderLayer { self_attn, mlp });

impl ClipEncoderLayer {
    pub(super) fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let hidden = self
            .self_attn
            .forward(self.layer_norm1.forward(input.clone()))
            + input;
        let normed = self.layer_norm2.forward(hidden.clone());
        self.mlp.forward(normed) + hidden
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct ClipEncoder {
    /// From the bottom.
    pub layers: Vec<ClipEncoderLayer>,
}

lora_layers!(ClipEncoder { layers });
