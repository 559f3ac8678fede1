//! The two factors of one module.

use std::borrow::Cow;

use ndarray::{Array2, ArrayD, ArrayView, Dimension};

use crate::{
    LoraError,
    dtype::are_finite,
    update::{MAX_DELTA, check_size},
};

/// One low-rank update of a weight `W [out, in, kernel..]`: `dW = alpha / rank * B A`.
///
/// `A` ("down") and `B` ("up") have the shapes PEFT gives them; for a convolution `A` carries the
/// kernel and `B` is a 1x1 convolution. rsLoRA's `alpha / sqrt(rank)` is represented by
/// `alpha' = alpha * sqrt(rank)`, so the scale is always `alpha / rank`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// `[rank, in]` for a linear layer, `[rank, in, kh, kw]` for a convolution.
    pub a: ArrayD<f32>,
    /// `[out, rank]` for a linear layer, `[out, rank, 1, 1]` for a convolution.
    pub b: ArrayD<f32>,
    /// The numerator of the scale; equal to the rank when nothing else was said.
    pub alpha: f64,
}

impl LoraModule {
    /// Puts two factors together.
    ///
    /// # Errors
    /// [`LoraError::FactorShapes`] when the shapes do not belong together or a dimension is zero,
    /// [`LoraError::BadAlpha`] when alpha is not finite.
    pub fn new(a: ArrayD<f32>, b: ArrayD<f32>, alpha: f64) -> Result<Self, LoraError> {
        let module = Self { a, b, alpha };
        module.check()?;
        Ok(module)
    }

    /// Puts two factors together that belong to somebody else, for example to a trainer; they are copied.
    /// A linear layer has two-dimensional factors, a convolution four-dimensional ones.
    ///
    /// ```
    /// use ndarray::{Array2, s};
    /// use selma_lora::LoraModule;
    ///
    /// // All of a trainer's down projections in one array, of which this module has four rows.
    /// let (downs, up) = (Array2::<f32>::ones((32, 320)), Array2::<f32>::zeros((640, 4)));
    /// let module = LoraModule::from_views(&downs.slice(s![8..12, ..]), &up.view(), 4.0)?;
    /// assert_eq!((module.rank(), module.weight_shape()), (4, vec![640, 320]));
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_views<D: Dimension, E: Dimension>(
        a: &ArrayView<'_, f32, D>,
        b: &ArrayView<'_, f32, E>,
        alpha: f64,
    ) -> Result<Self, LoraError> {
        Self::new(a.to_owned().into_dyn(), b.to_owned().into_dyn(), alpha)
    }

    /// Checks what [`new`](Self::new) checks; the fields are public and may have been changed.
    pub(crate) fn check(&self) -> Result<(), LoraError> {
        let fits = match (self.a.shape(), self.b.shape()) {
            ([rank, inputs, kernel @ ..], [out, b_rank, ones @ ..]) => {
                rank == b_rank
                    && *rank > 0
                    && *inputs > 0
                    && *out > 0
                    && kernel.len() == ones.len()
                    && kernel.iter().all(|&k| k > 0)
                    && ones.iter().all(|&k| k == 1)
            }
            _ => false,
        };
        if !fits {
            return Err(LoraError::FactorShapes {
                a: self.a.shape().to_vec(),
                b: self.b.shape().to_vec(),
            });
        }
        if !self.alpha.is_finite() {
            return Err(LoraError::BadAlpha {
                alpha: self.alpha.to_string(),
            });
        }
        Ok(())
    }

    /// The rank: rows of `A`, columns of `B`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.a.shape().first().copied().unwrap_or(0)
    }

    /// What `B A` is multiplied by: `alpha / rank`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }

    /// Outputs of the weight.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.b.shape().first().copied().unwrap_or(0)
    }

    /// Inputs of the weight with the kernel multiplied in: `in * kh * kw`.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.a.shape().iter().skip(1).product()
    }

    /// The shape of the weight this changes: `[out, in]` or `[out, in, kh, kw]`.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        std::iter::once(self.outputs())
            .chain(self.a.shape().iter().skip(1).copied())
            .collect()
    }

    /// Numbers stored in both factors.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.a.len() + self.b.len()
    }

    /// The dense update `dW [out, in * kh * kw]`, multiplied in `f64` and rounded once.
    ///
    /// # Errors
    /// As [`delta_f64`](Self::delta_f64).
    pub fn delta(&self) -> Result<Array2<f32>, LoraError> {
        Ok(self.delta_f64()?.mapv(|x| x as f32))
    }

    /// The dense update in `f64`.
    ///
    /// # Errors
    /// [`LoraError::FactorShapes`] when the factors do not fit each other, [`LoraError::TooLarge`] for more
    /// than 2^30 numbers, which a few bytes of factors can stand for.
    pub fn delta_f64(&self) -> Result<Array2<f64>, LoraError> {
        self.check()?;
        check_size("the dense update", &self.weight_shape(), MAX_DELTA)?;
        let turned = self.a_turned() * self.b_turned();
        let scale = self.scale();
        Ok(Array2::from_shape_fn(
            (turned.ncols(), turned.nrows()),
            |(i, j)| turned.get(j, i) * scale,
        ))
    }

    /// True when `dW` is zero because a factor (or alpha) is.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.alpha == 0.0 || self.a.iter().all(|&x| x == 0.0) || self.b.iter().all(|&x| x == 0.0)
    }

    /// True when every number is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let finite = |factor| are_finite(&row_major(factor));
        self.alpha.is_finite() && finite(&self.a) && finite(&self.b)
    }
}

/// The numbers of a factor in row-major order, copied only if they lie otherwise.
pub(crate) fn row_major(factor: &ArrayD<f32>) -> Cow<'_, [f32]> {
    match factor.as_slice() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(factor.iter().copied().collect()),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn, arr2};

    use super::*;

    fn array(shape: &[usize]) -> ArrayD<f32> {
        let n: usize = shape.iter().product();
        ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(|i| i as f32).collect()).unwrap()
    }

    #[test]
    fn delta_is_the_scaled_product() {
        let module = LoraModule::new(
            arr2(&[[1.0, 2.0, 3.0]]).into_dyn(),
            arr2(&[[1.0], [-2.0]]).into_dyn(),
            0.5,
        )
        .unwrap();
        assert_eq!(
            module.delta().unwrap(),
            arr2(&[[0.5, 1.0, 1.5], [-1.0, -2.0, -3.0]])
        );
        assert_eq!(module.weight_shape(), [2, 3]);
        assert_eq!(module.parameters(), 5);
    }

    #[test]
    fn a_convolution_is_flattened() {
        let module = LoraModule::new(array(&[2, 3, 3, 3]), array(&[5, 2, 1, 1]), 2.0).unwrap();
        assert_eq!(module.weight_shape(), [5, 3, 3, 3]);
        assert_eq!(module.delta().unwrap().dim(), (5, 27));
        // Row 1 of B is [2, 3], column 4 of A is [4, 31]: 2 * 4 + 3 * 31.
        assert_eq!(module.delta().unwrap()[[1, 4]], 101.0);
    }

    #[test]
    fn a_transposed_factor_has_the_same_delta() {
        let a = arr2(&[[1.0, 2.0], [3.0, 4.0]]);
        let b = arr2(&[[1.0, 5.0], [-2.0, 7.0]]);
        let plain = LoraModule::new(a.clone().into_dyn(), b.clone().into_dyn(), 2.0).unwrap();
        let turned = LoraModule::new(
            a.t().to_owned().reversed_axes().into_dyn(),
            b.into_dyn(),
            2.0,
        )
        .unwrap();
        assert_eq!(plain.delta().unwrap(), turned.delta().unwrap());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for (a, b) in [
            (vec![2, 3], vec![4, 3]),
            (vec![2, 3, 3, 3], vec![4, 2]),
            (vec![2, 3, 3, 3], vec![4, 2, 3, 3]),
            (vec![0, 3], vec![4, 0]),
            (vec![3], vec![4, 2]),
        ] {
            let error = LoraModule::new(array(&a), array(&b), 1.0).unwrap_err();
            assert!(matches!(error, LoraError::FactorShapes { .. }), "{error}");
        }
        let error = LoraModule::new(array(&[1, 2]), array(&[2, 1]), f64::NAN).unwrap_err();
        assert!(matches!(error, LoraError::BadAlpha { .. }));
    }
}
