//! Group and layer normalisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{DType, Device, FloatDType, Tensor};
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
        let dtype = input.dtype();
        let (weight, bias) = (self.weight.val().cast(dtype), self.bias.val().cast(dtype));
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

    /// Normalises the last dimension; half precision is computed in `f32`, as torch does, for its squares overflow.
    ///
    /// # Shapes
    ///
    /// - input and output: `[.., width]`
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let dtype = input.dtype();
        let computed = match dtype {
            DType::F16 | DType::BF16 => DType::F32,
            other => other,
        };
        let (weight, bias) = (
            self.weight.val().cast(computed),
            self.bias.val().cast(computed),
        );
        layer_norm(input.cast(computed), weight, Some(bias), self.eps).cast(FloatDType::from(dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ModuleMapper;

    struct Half;

    impl ModuleMapper for Half {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(FloatDType::F16))
        }
    }

    #[test]
    fn a_layer_norm_in_f16_takes_what_its_squares_do_not() {
        // Under autodiff the backend's normalisation is made of separate operations, in the type of their inputs.
        let device = Device::flex().autodiff();
        let norm = LayerNorm::init(2, 1e-5, &device).map(&mut Half);
        let input = Tensor::<2>::from_floats([[3000.0, -1000.0]], &device);
        let output = norm.forward(input.cast(FloatDType::F16)).into_data();
        let output = output.convert::<f32>().try_to_vec::<f32>().unwrap();
        assert_eq!(output, [1.0, -1.0]);
    }
}
