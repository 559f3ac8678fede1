//! Activation functions by the names that `config.json` files use.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// An activation function, named as in `config.json` (`act_fn`, `hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// The exact Gaussian error linear unit, by erf.
    #[serde(rename = "gelu")]
    Gelu,
    /// `x * sigmoid(1.702 x)`, the approximation that OpenAI's CLIP was trained with.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
}

impl Activation {
    /// Applies the function to every element.
    #[must_use]
    pub fn forward<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => selma_kernels::silu(input),
            Self::Gelu => selma_kernels::gelu(input),
            Self::QuickGelu => {
                let gate = activation::sigmoid(input.clone().mul_scalar(1.702));
                input * gate
            }
        }
    }
}
