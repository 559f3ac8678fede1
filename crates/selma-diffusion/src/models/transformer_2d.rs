//! A transformer over the positions of a feature map.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{
    LoraConv2d, LoraConv2dConfig, LoraLayerMut, LoraLayers, LoraLinear, LoraLinearConfig,
};

use super::BasicTransformerBlock;
use crate::nn::GroupNorm;

/// A projection of channels: a 1x1 convolution in SD 1, a linear layer in SD 2 and SDXL.
///
/// The variant's name is no part of a checkpoint key.
#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a few of them, and burn has no modules in boxes"
)]
pub enum Projection {
    /// On `[batch, channels, height, width]`.
    Conv2d(LoraConv2d),
    /// On `[batch, positions, channels]`.
    Linear(LoraLinear),
}

impl LoraLayers for Projection {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        match self {
            Self::Conv2d(conv) => conv.push_layers(path, layers),
            Self::Linear(linear) => linear.push_layers(path, layers),
        }
    }
}

impl Projection {
    fn init(channels: usize, linear: bool, device: &Device) -> Self {
        if linear {
            Self::Linear(LoraLinearConfig::new(channels, channels).init(device))
        } else {
            Self::Conv2d(LoraConv2dConfig::new(channels, channels, 1).init(device))
        }
    }
}

/// Configuration of a [`Transformer2DModel`].
#[derive(Debug, Clone, Copy)]
pub struct Transformer2DModelConfig {
    /// Channels of the feature map, and width of the blocks.
    pub channels: usize,
    /// Number of heads.
    pub heads: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Width of the text's embeddings.
    pub cross_attention_dim: usize,
    /// Groups of the normalisation.
    pub norm_num_groups: usize,
    /// Linear instead of 1x1 convolution at both ends.
    pub use_linear_projection: bool,
    /// Whether attention logits and softmax are in `f32` where the model is in half precision.
    pub upcast_attention: bool,
}

impl Transformer2DModelConfig {
    /// The model.
    #[must_use]
    pub fn init(&self, device: &Device) -> Transformer2DModel {
        let block = || BasicTransformerBlock::init(self, device);
        Transformer2DModel {
            norm: GroupNorm::init(self.norm_num_groups, self.channels, 1e-6, device),
            proj_in: Projection::init(self.channels, self.use_linear_projection, device),
            transformer_blocks: (0..self.num_layers).map(|_| block()).collect(),
            proj_out: Projection::init(self.channels, self.use_linear_projection, device),
        }
    }
}

/// A transformer over the positions of a feature map, around a residual connection.
#[derive(Module, Debug)]
pub struct Transformer2DModel {
    /// Before the projection.
    pub norm: GroupNorm,
    /// Into the blocks.
    pub proj_in: Projection,
    /// The blocks.
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    /// Out of the blocks.
    pub proj_out: Projection,
}

lora_layers!(Transformer2DModel {
    proj_in,
    transformer_blocks,
    proj_out
});

impl Transformer2DModel {
    /// # Shapes
    ///
    /// - input and output: `[batch, channels, height, width]`
    /// - context: `[batch, text length, cross_attention_dim]`
    #[must_use]
    pub fn forward(&self, input: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let to_tokens = |map: Tensor<4>| {
            map.reshape([batch, channels, height * width])
                .swap_dims(1, 2)
        };
        let to_map = |tokens: Tensor<3>| {
            tokens
                .swap_dims(1, 2)
                .reshape([batch, channels, height, width])
        };
        let normalised = self.norm.forward(input.clone());
        let tokens = match &self.proj_in {
            Projection::Conv2d(conv) => to_tokens(conv.forward(normalised)),
            Projection::Linear(linear) => linear.forward(to_tokens(normalised)),
        };
        let tokens = self
            .transformer_blocks
            .iter()
            .fold(tokens, |hidden, block| block.forward(hidden, context));
        let output = match &self.proj_out {
            Projection::Conv2d(conv) => conv.forward(to_map(tokens)),
            Projection::Linear(linear) => to_map(linear.forward(tokens)),
        };
        output + input
    }
}
