//! The number types that matrices are multiplied in.

use faer::{Mat, MatRef, traits::RealField, unzip, zip};

/// Singular values that are this much smaller than the largest are rounding: factors are `f32`.
pub(crate) const NEGLIGIBLE: f64 = 1e-7;

/// The number type of products of matrices.
pub(crate) trait Number: RealField + Copy {
    /// Whether eigenvectors of these products may be off by more than counts.
    const SINGLE: bool;
    /// The diagonal of a Gram matrix is lifted by as much of its largest number, so that it has a Cholesky decomposition
    /// in spite of rounding.
    const LIFT: f64;

    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
    /// A matrix in the type that factors are kept in.
    fn single(matrix: Mat<Self>) -> Mat<f32>;
}

impl Number for f64 {
    const SINGLE: bool = false;
    /// What is below [`NEGLIGIBLE`] squared.
    const LIFT: f64 = 16.0 * f64::EPSILON;

    fn of(x: f64) -> Self {
        x
    }

    fn wide(self) -> f64 {
        self
    }

    fn single(matrix: Mat<Self>) -> Mat<f32> {
        cast(matrix.as_ref())
    }
}

impl Number for f32 {
    const SINGLE: bool = true;
    /// Any would be far from negligible.
    const LIFT: f64 = 0.0;

    fn of(x: f64) -> Self {
        x as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn single(matrix: Mat<Self>) -> Mat<f32> {
        matrix
    }
}

/// A matrix in another number type.
pub(crate) fn cast<T: Number, U: Number>(matrix: MatRef<'_, T>) -> Mat<U> {
    zip!(matrix).map(|unzip!(&x)| U::of(x.wide()))
}
