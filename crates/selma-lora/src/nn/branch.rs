//! One low-rank branch of a layer.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

/// One low-rank branch: it adds `weight * scale * B(A(x))` to its layer's output.
///
/// The factors are plain tensors, not parameters of the module: they are no part of the base checkpoint, and a trainer
/// decides for itself whether they carry gradients.
#[derive(Module, Debug)]
pub struct LoraBranch<const D: usize> {
    /// Name of the adapter that the branch belongs to.
    pub name: String,
    /// Down-projection `A`: `[rank, in]`, or `[rank, in, kh, kw]` on a convolution.
    pub a: Tensor<D>,
    /// Up-projection `B`: `[out, rank]`, or `[out, rank, 1, 1]` on a convolution.
    pub b: Tensor<D>,
    /// `alpha / rank`.
    pub scale: f64,
    /// Strength chosen by the user; 1 is the adapter as trained.
    pub weight: f64,
}

impl<const D: usize> LoraBranch<D> {
    /// The factor in front of `B(A(x))`.
    #[must_use]
    pub fn strength(&self) -> f64 {
        self.weight * self.scale
    }

    /// Whether the branch changes its layer's output at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.strength() != 0.0
    }

    /// Rank of the factors.
    pub(super) fn rank(&self) -> usize {
        self.a.dims().first().copied().unwrap_or_default()
    }

    /// Whether a gradient of one of the factors is asked for.
    pub(super) fn is_tracked(&self) -> bool {
        self.a.is_tracked() || self.b.is_tracked()
    }

    /// What the branch adds to a weight of this shape: `strength * B A`, in `f32`.
    pub(super) fn update(&self, shape: [usize; D]) -> Tensor<D> {
        let flat = |factor: &Tensor<D>, rows: usize| -> Tensor<2> {
            let values = factor.dims().iter().product::<usize>();
            let columns = values / rows.max(1);
            factor.clone().cast(DType::F32).reshape([rows, columns])
        };
        let rows = self.b.dims().first().copied().unwrap_or_default();
        let product = flat(&self.b, rows).matmul(flat(&self.a, self.rank()));
        product.reshape(shape).mul_scalar(self.strength())
    }
}
