//! LoKr: the Kronecker product of two matrices (LyCORIS).

use ndarray::{Array2, ArrayD};

use super::Matrix;
use crate::LoraError;

/// `dW = scale * kron(W1, W2)`, each of the two a matrix or a product (LyCORIS
/// `functional/lokr.py`; PEFT `tuners/lokr/layer.py`). The scale is `alpha / rank` while one of them
/// is a product; two whole matrices have no rank, and the scale is 1 unless a configuration gives one.
#[derive(Debug, Clone, PartialEq)]
pub struct Lokr {
    first: Matrix,
    second: Matrix,
    scale: f64,
}

impl Lokr {
    pub(crate) fn new(first: Matrix, second: Matrix, scale: f64) -> Result<Self, LoraError> {
        first.check(["lokr_w1_a", "lokr_w1_b", "lokr_w1"])?;
        second.check(["lokr_w2_a", "lokr_w2_b", "lokr_t2"])?;
        // The kernel of a convolution belongs to the second matrix, and both divide by one rank.
        let one_rank = match (first.rank(), second.rank()) {
            (Some(first), Some(second)) => first == second,
            _ => true,
        };
        if !one_rank || first.shape().iter().skip(2).any(|&k| k != 1) {
            return Err(LoraError::PartShapes {
                left: "lokr_w1",
                left_shape: first.shape(),
                right: "lokr_w2",
                right_shape: second.shape(),
            });
        }
        if !scale.is_finite() {
            return Err(LoraError::BadAlpha {
                alpha: scale.to_string(),
            });
        }
        Ok(Self {
            first,
            second,
            scale,
        })
    }

    /// What the Kronecker product is multiplied by.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn weight_shape(&self) -> Vec<usize> {
        let (first, second) = (self.first.shape(), self.second.shape());
        let ends = first.iter().zip(&second).take(2);
        let kernel = second.iter().skip(2).copied();
        // A product of large numbers from a damaged file must not wrap around to a small one.
        ends.map(|(x, y)| x.saturating_mul(*y))
            .chain(kernel)
            .collect()
    }

    /// A kernel may as well be multiplied into the columns of the second matrix.
    pub(super) fn delta(&self) -> Array2<f64> {
        let mut delta = ndarray::linalg::kron(&self.first.values(), &self.second.values());
        delta *= self.scale;
        delta
    }

    pub(super) fn tensors(&self) -> Vec<&ArrayD<f32>> {
        [self.first.tensors(), self.second.tensors()].concat()
    }
}
