//! LoHa: the elementwise product of two low-rank updates (FedPara, arXiv 2108.06098; LyCORIS).

use ndarray::{Array2, ArrayD};

use super::Side;
use crate::LoraError;

/// `dW = alpha / rank * (W1a W1b) o (W2a W2b)`, the rank of which can be the square of `rank`
/// (LyCORIS `functional/loha.py`; PEFT `tuners/loha/layer.py`).
#[derive(Debug, Clone, PartialEq)]
pub struct Loha {
    first: Box<Side>,
    second: Box<Side>,
    alpha: f64,
}

impl Loha {
    pub(crate) fn new(first: Side, second: Side, alpha: f64) -> Result<Self, LoraError> {
        first.check(["hada_w1_a", "hada_w1_b", "hada_t1"])?;
        second.check(["hada_w2_a", "hada_w2_b", "hada_t2"])?;
        if first.shape() != second.shape() {
            return Err(LoraError::PartShapes {
                left: "hada_w1",
                left_shape: first.shape(),
                right: "hada_w2",
                right_shape: second.shape(),
            });
        }
        if !alpha.is_finite() {
            return Err(LoraError::BadAlpha {
                alpha: alpha.to_string(),
            });
        }
        Ok(Self {
            first: Box::new(first),
            second: Box::new(second),
            alpha,
        })
    }

    /// The rank of each of the two products.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.first.rank()
    }

    /// The numerator of the scale.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    pub(super) fn weight_shape(&self) -> Vec<usize> {
        self.first.shape()
    }

    pub(super) fn delta(&self) -> Array2<f64> {
        let scale = self.alpha / self.rank() as f64;
        let mut product = self.first.product();
        product *= &self.second.product();
        product *= scale;
        product
    }

    pub(super) fn tensors(&self) -> Vec<&ArrayD<f32>> {
        self.first.tensors().chain(self.second.tensors()).collect()
    }
}
