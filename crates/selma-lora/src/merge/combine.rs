//! The arithmetic of one module.

use faer::Mat;

use crate::{
    LoraError, LoraModule,
    linalg::{product_norm, to_factor, truncate},
    matching::same_weight,
};

/// One adapter's share in a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term<'a> {
    pub(super) module: &'a LoraModule,
    pub(super) weight: f64,
}

/// `dW = scale * B A`, not yet rounded.
#[derive(Debug)]
pub(super) struct Combined {
    /// `[out, rank]`
    b: Mat<f64>,
    /// `[rank, in * kh * kw]`
    a: Mat<f64>,
    scale: f64,
}

/// [`Combined`] at its final rank.
#[derive(Debug)]
pub(super) struct Limited {
    combined: Combined,
    /// Frobenius norm of `dW` before truncation.
    pub(super) norm: f64,
    /// Relative Frobenius norm of what truncation cut off.
    pub(super) truncation_error: f64,
}

/// The shape of the weight that all terms change, with the kernel of a 1x1 convolution if any of
/// them has it.
pub(super) fn weight_shape(terms: &[Option<Term<'_>>]) -> Result<Vec<usize>, LoraError> {
    let mut shape: Vec<usize> = Vec::new();
    for term in terms.iter().flatten() {
        term.module.check()?;
        let found = term.module.weight_shape();
        if !shape.is_empty() && !same_weight(&shape, &found) {
            return Err(LoraError::WeightShapes {
                expected: shape,
                found,
            });
        }
        if found.len() > shape.len() {
            shape = found;
        }
    }
    Ok(shape)
}

/// `factor * sum_i w_i dW_i`: the factors side by side, each weighted by the square root of its
/// coefficient, which keeps both in the range of 16-bit floats; the sign goes into `B`.
pub(super) fn concatenate(terms: &[Option<Term<'_>>], factor: f64) -> Combined {
    let present = || terms.iter().flatten();
    let rank: usize = present().map(|t| t.module.rank()).sum();
    let rows = present().map(|t| t.module.outputs()).max().unwrap_or(0);
    let columns = present().map(|t| t.module.inputs()).max().unwrap_or(0);
    let mut a = Mat::zeros(rank, columns);
    let mut b = Mat::zeros(rows, rank);
    let mut start = 0;
    for term in present() {
        let r = term.module.rank();
        let coefficient = factor * term.weight * term.module.scale();
        let root = coefficient.abs().sqrt();
        let signed = root.copysign(coefficient);
        a.subrows_mut(start, r)
            .copy_from(faer::Scale(root) * term.module.a_matrix());
        b.subcols_mut(start, r)
            .copy_from(faer::Scale(signed) * term.module.b_matrix());
        start += r;
    }
    Combined { b, a, scale: 1.0 }
}

/// `(1/N sum_i w_i B_i) (1/N sum_i w_i A_i)`. When all scales are equal they stay outside, as the
/// paper has it; otherwise the root of each goes into its own factors (and the sign into `B`).
pub(super) fn mean_of_factors(terms: &[Option<Term<'_>>]) -> Result<Combined, LoraError> {
    let present = || terms.iter().flatten();
    let Some(first) = present().next().map(|t| t.module) else {
        return Err(LoraError::NoAdapters);
    };
    let mut b = Mat::zeros(first.outputs(), first.rank());
    let mut a = Mat::zeros(first.rank(), first.inputs());
    let common = present().all(|t| t.module.scale() == first.scale());
    for term in present() {
        if term.module.rank() != first.rank() {
            return Err(LoraError::Ranks {
                expected: first.rank(),
                found: term.module.rank(),
            });
        }
        let (for_b, for_a) = factor_weights(term, terms.len(), common);
        b += faer::Scale(for_b) * term.module.b_matrix();
        a += faer::Scale(for_a) * term.module.a_matrix();
    }
    let scale = if common { first.scale() } else { 1.0 };
    Ok(Combined { b, a, scale })
}

/// What `B_i` and `A_i` are multiplied by in a mean of `count` factors.
pub(super) fn factor_weights(term: &Term<'_>, count: usize, common_scale: bool) -> (f64, f64) {
    let share = term.weight / count as f64;
    if common_scale {
        return (share, share);
    }
    let scale = term.module.scale();
    let root = scale.abs().sqrt();
    (share * root.copysign(scale), share * root)
}

impl Combined {
    /// Cuts the rank down to `limit` (none: keeps it) or to what the shape allows.
    pub(super) fn limited(self, limit: Option<usize>) -> Result<Limited, LoraError> {
        let rank = self.b.ncols();
        let kept = limit.map_or(rank, |k| k.min(self.b.nrows()).min(self.a.ncols()));
        if kept >= rank {
            return Ok(Limited {
                norm: product_norm(&self.b, &self.a) * self.scale.abs(),
                combined: self,
                truncation_error: 0.0,
            });
        }
        let scaled = faer::Scale(self.scale) * &self.b;
        let cut = truncate(&scaled, &self.a, kept)?;
        Ok(Limited {
            combined: Self {
                b: cut.b,
                a: cut.a,
                scale: 1.0,
            },
            norm: cut.norm,
            truncation_error: cut.error,
        })
    }
}

impl Limited {
    /// Rounds to the factors of a weight of this shape.
    pub(super) fn module(&self, weight_shape: &[usize]) -> Result<LoraModule, LoraError> {
        let Combined { b, a, scale } = &self.combined;
        let rank = a.nrows();
        let kernel = weight_shape.get(2..).unwrap_or_default();
        let mut a_shape = vec![rank];
        a_shape.extend(weight_shape.iter().skip(1));
        let mut b_shape = vec![b.nrows(), rank];
        b_shape.extend(kernel.iter().map(|_| 1));
        LoraModule::new(
            to_factor(a.as_ref(), &a_shape)?,
            to_factor(b.as_ref(), &b_shape)?,
            scale * rank as f64,
        )
    }
}
