//! Group and layer normalisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor};
use selma_kernels::group_norm;

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
        self.normalise(input, false)
    }

    /// [`forward`](Self::forward), then SiLU, in one pass on the CPU.
    ///
    /// # Shapes
    ///
    /// - input and output: `[batch, channels, height, width]`
    ///
    /// # Panics
    ///
    /// If the number of groups does not divide the channels of the input.
    #[must_use]
    pub fn forward_silu(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalise(input, true)
    }

    fn normalise(&self, input: Tensor<4>, activation: bool) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        group_norm(input, weight, bias, self.num_groups, self.eps, activation)
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
