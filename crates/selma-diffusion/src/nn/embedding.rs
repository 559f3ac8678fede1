//! A table of vectors.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor};

/// A table of vectors, looked up by index.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[entries, width]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A table drawn from N(0, 0.02^2), CLIP's initialisation, if no weights are loaded.
    #[must_use]
    pub fn init(entries: usize, width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        Self {
            weight: normal.init([entries, width], device),
        }
    }

    /// Looks up indices.
    ///
    /// # Shapes
    ///
    /// - indices: `[batch, length]`
    /// - output: `[batch, length, width]`
    #[must_use]
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.weight.val(), indices)
    }
}
