//! Group and layer normalisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor};

/// Group normalisation (arXiv 1803.08494) over `[batch, channels, ..]`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// Number of groups; divides the number of channels.
    pub num_groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// The identity scale and shift, if no weights are loaded.
    #[must_use]
    pub fn init(num_groups: usize, num_channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([num_channels], device),
            bias: Initializer::Zeros.init([num_channels], device),
            num_groups,
            eps,
        }
    }

    /// Normalises each group of channels over all its positions.
    ///
    /// # Shapes
    ///
    /// - input and output: `[batch, channels, height, width]`
    ///
    /// # Panics
    ///
    /// If the number of groups does not divide the channels of the input.
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let shape = input.dims();
        let [batch, channels, height, width] = shape;
        let group = channels / self.num_groups * height * width;
        let grouped = input.reshape([batch, self.num_groups, group]);
        let centred = grouped.clone() - grouped.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2);
        let normalised = centred / variance.add_scalar(self.eps).sqrt();
        let weight = self.weight.val().reshape([1, channels, 1, 1]);
        let bias = self.bias.val().reshape([1, channels, 1, 1]);
        normalised.reshape(shape) * weight + bias
    }
}

/// Layer normalisation (arXiv 1607.06450) over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Param<Tensor<1>>,
    /// `[width]`.
    pub bias: Param<Tensor<1>>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// The identity scale and shift, if no weights are loaded.
    #[must_use]
    pub fn init(width: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: Initializer::Zeros.init([width], device),
            eps,
        }
    }

    /// Normalises the last dimension.
    ///
    /// # Shapes
    ///
    /// - input and output: `[.., width]`
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        layer_norm(input, self.weight.val(), Some(self.bias.val()), self.eps)
    }
}
