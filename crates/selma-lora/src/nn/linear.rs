//! A linear layer with low-rank branches.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

use super::contraction::{Contraction, contract};
use super::{InputObserver, LoraBranch, LoraMixture, Unfused};

/// Configuration of a [`LoraLinear`].
#[derive(Debug, Clone, Copy)]
pub struct LoraLinearConfig {
    /// Size of the last dimension of the input.
    pub in_features: usize,
    /// Size of the last dimension of the output.
    pub out_features: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl LoraLinearConfig {
    /// A layer with a bias.
    #[must_use]
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Self {
            in_features,
            out_features,
            bias: true,
        }
    }

    /// Sets whether a bias is added.
    #[must_use]
    pub fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// The layer, with torch's default initialisation, drawn only if no weights are loaded.
    #[must_use]
    pub fn init(&self, device: &Device) -> LoraLinear {
        let bound = 1.0 / (self.in_features as f64).sqrt();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        LoraLinear {
            weight: uniform.init([self.out_features, self.in_features], device),
            bias: self.bias.then(|| uniform.init([self.out_features], device)),
            branches: Vec::new(),
            mixture: None,
            unfused: None,
            observer: None,
        }
    }
}

/// A linear layer `x W^T + b` with any number of low-rank branches.
///
/// The weight keeps the layout of the checkpoint, `[out, in]`, so that a checkpoint key is a field path and nothing is
/// transposed on load or save.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Low-rank branches, in the order in which they were attached.
    pub branches: Vec<LoraBranch<2>>,
    /// Branches whose shares are learned. They are never in the weight.
    pub mixture: Option<LoraMixture>,
    /// The weight without the branches that are fused into it.
    pub unfused: Option<Unfused<2>>,
    /// Sees the inputs, where a [`Calibrator`](super::Calibrator) watches the layer.
    #[module(skip)]
    pub observer: Option<InputObserver<2>>,
}

impl LoraLinear {
    /// Applies the base, all active branches, and the mixture, in the number type of the input, to which weights of another type are converted for this call.
    ///
    /// # Shapes
    ///
    /// - input: `[.., in]`
    /// - output: `[.., out]`
    ///
    /// # Panics
    ///
    /// If the last dimension of the input is not `in`.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if let Some(observer) = &self.observer {
            let width = input.dims().last().copied().unwrap_or_default();
            let inputs = input.shape().num_elements() / width.max(1);
            let rows: Tensor<2> = input.clone().reshape([inputs, width]);
            let a = observer.a.clone().cast(input.dtype()).transpose();
            observer.add(&linear(rows, a, None));
        }
        let (dtype, dims) = (input.dtype(), input.dims());
        let weight = self.weight.val().cast(dtype);
        let [outputs, inputs] = weight.dims();
        let input_tracked = input.is_tracked();
        let (weight, beside) = contract(weight, &self.branches, |branch| Contraction {
            rows: dims.iter().product::<usize>() / inputs.max(1),
            inputs,
            outputs,
            rank: branch.rank(),
            factors_tracked: branch.is_tracked(),
            input_tracked,
        });
        let mixture = self.mixture.iter().filter(|mixture| mixture.is_active());
        let mixed = mixture.map(|mixture| mixture.forward(&input));
        let update = beside
            .into_iter()
            .map(|branch| {
                let factor = |tensor: &Tensor<2>| tensor.clone().cast(dtype).transpose();
                let down = linear(input.clone(), factor(&branch.a), None);
                let up = linear(down, factor(&branch.b), None);
                up.mul_scalar(branch.strength())
            })
            .chain(mixed)
            .reduce(|sum, update| sum + update);
        let bias = self.bias.as_ref().map(|bias| bias.val().cast(dtype));
        let output = linear(input, weight.transpose(), bias);
        match update {
            Some(update) => output + update,
            None => output,
        }
    }
}
