//! Attention and the transformer block built from it.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use selma_kernels::{attention, geglu};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraLayerMut, LoraLayers, LoraLinear, LoraLinearConfig};

use crate::nn::{GroupNorm, LayerNorm};

/// Configuration of an [`Attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Width of the queries' input and of the output.
    pub query_dim: usize,
    /// Width of the keys' and values' input.
    pub context_dim: usize,
    /// Number of heads; divides `query_dim`.
    pub heads: usize,
    /// Whether the three input projections have a bias (they have in the VAE).
    pub qkv_bias: bool,
    /// Groups and epsilon of the normalisation before (VAE only).
    pub group_norm: Option<(usize, f64)>,
}

impl AttentionConfig {
    /// The layer.
    #[must_use]
    pub fn init(&self, device: &Device) -> Attention {
        let (query, context) = (self.query_dim, self.context_dim);
        let project = |input| {
            LoraLinearConfig::new(input, query)
                .with_bias(self.qkv_bias)
                .init(device)
        };
        Attention {
            group_norm: self
                .group_norm
                .map(|(groups, eps)| GroupNorm::init(groups, query, eps, device)),
            to_q: project(query),
            to_k: project(context),
            to_v: project(context),
            to_out: vec![LoraLinearConfig::new(query, query).init(device)],
            heads: self.heads,
        }
    }
}

/// Multi-head attention; self-attention where no context is given.
#[derive(Module, Debug)]
pub struct Attention {
    /// Normalisation before (VAE only).
    pub group_norm: Option<GroupNorm>,
    /// Queries.
    pub to_q: LoraLinear,
    /// Keys.
    pub to_k: LoraLinear,
    /// Values.
    pub to_v: LoraLinear,
    /// Output projection, at index 0 (index 1 is a dropout in diffusers).
    pub to_out: Vec<LoraLinear>,
    /// Number of heads.
    pub heads: usize,
}

lora_layers!(Attention {
    to_q,
    to_k,
    to_v,
    to_out
});

impl Attention {
    /// Attends from every position of the input to every position of the context.
    ///
    /// # Shapes
    ///
    /// - input and output: `[batch, length, query_dim]`
    /// - context: `[batch, context length, context_dim]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>, context: Option<&Tensor<3>>) -> Tensor<3> {
        let context = context.cloned().unwrap_or_else(|| input.clone());
        let query = self.split_heads(self.to_q.forward(input));
        let key = self.split_heads(self.to_k.forward(context.clone()));
        let value = self.split_heads(self.to_v.forward(context));
        let attended = attention(query, key, value);
        let [batch, heads, length, head_dim] = attended.dims();
        let merged = attended
            .swap_dims(1, 2)
            .reshape([batch, length, heads * head_dim]);
        self.to_out
            .iter()
            .fold(merged, |hidden, layer| layer.forward(hidden))
    }

    /// Attention over the positions of a feature map, around a residual connection (VAE).
    ///
    /// # Shapes
    ///
    /// - input and output: `[batch, query_dim, height, width]`
    #[must_use]
    pub fn forward_spatial(&self, input: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let normalised = match &self.group_norm {
            Some(norm) => norm.forward(input.clone()),
            None => input.clone(),
        };
        let tokens = normalised
            .reshape([batch, channels, height * width])
            .swap_dims(1, 2);
        let attended = self.forward(tokens, None);
        attended
            .swap_dims(1, 2)
            .reshape([batch, channels, height, width])
            + input
    }

    fn split_heads(&self, input: Tensor<3>) -> Tensor<4> {
        let [batch, length, width] = input.dims();
        input
            .reshape([batch, length, self.heads, width / self.heads])
            .swap_dims(1, 2)
    }
}

/// A gated linear unit with GELU (arXiv 2002.05202).
#[derive(Module, Debug)]
pub struct Geglu {
    /// To twice the inner width: values, then gates.
    pub proj: LoraLinear,
}

lora_layers!(Geglu { proj });

impl Geglu {
    /// # Shapes
    ///
    /// - input: `[batch, length, width]`
    /// - output: `[batch, length, inner width]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        geglu(self.proj.forward(input))
    }
}

/// The feed-forward network of a transformer block.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Gated unit, dropout (never active here) and output projection: `net.0`, `net.1` and `net.2` in a checkpoint.
    pub net: (Geglu, Dropout, LoraLinear),
}

impl LoraLayers for FeedForward {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        self.net.0.push_layers(&format!("{path}.net.0"), layers);
        self.net.2.push_layers(&format!("{path}.net.2"), layers);
    }
}

impl FeedForward {
    /// The inner width is four times `width`.
    #[must_use]
    pub fn init(width: usize, device: &Device) -> Self {
        let inner = 4 * width;
        let geglu = Geglu {
            proj: LoraLinearConfig::new(width, 2 * inner).init(device),
        };
        Self {
            net: (
                geglu,
                DropoutConfig::new(0.0).init(),
                LoraLinearConfig::new(inner, width).init(device),
            ),
        }
    }

    /// # Shapes
    ///
    /// - input and output: `[batch, length, width]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let (geglu, _, output) = &self.net;
        output.forward(geglu.forward(input))
    }
}

/// Self-attention, cross-attention and feed-forward, each around a residual connection.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock {
    /// Before the self-attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn1: Attention,
    /// Before the cross-attention.
    pub norm2: LayerNorm,
    /// Attention to the text.
    pub attn2: Attention,
    /// Before the feed-forward network.
    pub norm3: LayerNorm,
    /// Feed-forward network.
    pub ff: FeedForward,
}

lora_layers!(BasicTransformerBlock { attn1, attn2, ff });

impl BasicTransformerBlock {
    /// A block of `width` that attends to a text of `context_dim`.
    #[must_use]
    pub fn init(width: usize, heads: usize, context_dim: usize, device: &Device) -> Self {
        let attention = |context_dim| {
            AttentionConfig {
                query_dim: width,
                context_dim,
                heads,
                qkv_bias: false,
                group_norm: None,
            }
            .init(device)
        };
        Self {
            norm1: LayerNorm::init(width, 1e-5, device),
            attn1: attention(width),
            norm2: LayerNorm::init(width, 1e-5, device),
            attn2: attention(context_dim),
            norm3: LayerNorm::init(width, 1e-5, device),
            ff: FeedForward::init(width, device),
        }
    }

    /// # Shapes
    ///
    /// - input and output: `[batch, length, width]`
    /// - context: `[batch, text length, context_dim]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let hidden = self.attn1.forward(self.norm1.forward(input.clone()), None) + input;
        let hidden = self
            .attn2
            .forward(self.norm2.forward(hidden.clone()), Some(context))
            + hidden;
        self.ff.forward(self.norm3.forward(hidden.clone())) + hidden
    }
}
