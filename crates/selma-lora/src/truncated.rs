//! What is left of a product at a lower rank.

use faer::Mat;

use crate::number::cast;

/// The best approximation of a product by one of lower rank.
#[derive(Debug)]
pub(crate) struct Truncated<T = f64> {
    /// `B^T [k, m]`, with the square roots of the singular values.
    pub(crate) b_turned: Mat<T>,
    /// `A^T [n, k]`, with the square roots of the singular values.
    pub(crate) a_turned: Mat<T>,
    /// Frobenius norm of the whole product.
    pub(crate) norm: f64,
    /// Frobenius norm of what was cut off, relative to `norm`; 0 for a product of zero.
    pub(crate) error: f64,
}

impl Truncated<f32> {
    /// For those who go on computing with it.
    pub(crate) fn widened(&self) -> Truncated {
        Truncated {
            b_turned: cast(self.b_turned.as_ref()),
            a_turned: cast(self.a_turned.as_ref()),
            norm: self.norm,
            error: self.error,
        }
    }
}
