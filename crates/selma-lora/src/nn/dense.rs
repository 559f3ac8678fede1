//! Updates that no two factors stand for.

use burn::module::Module;
use burn::tensor::Tensor;

/// A whole update of a layer's weight: of a LoHa, a LoKr, a full difference or a DoRA. It is always a part of the weight,
/// as nothing would be cheaper beside it.
#[derive(Module, Debug)]
pub struct DenseUpdate<const D: usize> {
    /// Name of the adapter that the update belongs to.
    pub name: String,
    /// What is added to the weight, `[out, in]` or `[out, in, kh, kw]`.
    pub delta: Tensor<D>,
    /// Strength chosen by the user; 1 is the adapter as trained.
    pub weight: f64,
}
