//! The arithmetic of one module.

use faer::Mat;

use crate::{
    LoraError, LoraModule,
    dtype::are_finite,
    gram,
    linalg::{Columns, product_norm, to_factor, truncate, truncate_dense, truncate_in_double},
    matching::same_weight,
    module::row_major,
    number::Number,
    truncated::Truncated,
};

/// One adapter's share in a module.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// The adapter's factors.
    pub module: &'a LoraModule,
    /// What its update is multiplied by.
    pub weight: f64,
}

impl Term<'_> {
    /// What `B A` is multiplied by: weight and scale.
    pub(super) fn coefficient(&self) -> f64 {
        self.weight * self.module.scale()
    }
}

/// A merged update that is not yet rounded.
#[derive(Debug)]
pub(super) enum Update<'a> {
    /// As a sum of products.
    Sum(Sum<'a>),
    /// As a product.
    Factors(Factors),
    /// `dW^T [in * kh * kw, out]`
    Dense(Mat<f64>),
}

/// `scale * sum_i w_i dW_i`
#[derive(Debug)]
pub(super) struct Sum<'a> {
    terms: Vec<Term<'a>>,
    scale: f64,
}

/// `dW = scale * B A`, not yet rounded.
#[derive(Debug)]
pub(super) struct Factors {
    /// `B^T [rank, out]`
    pub(super) b_turned: Mat<f64>,
    /// `A^T [in * kh * kw, rank]`
    pub(super) a_turned: Mat<f64>,
    pub(super) scale: f64,
}

/// An update at its final rank, as `scale * B A`.
#[derive(Debug)]
pub(super) struct Limited {
    b_turned: Mat<f32>,
    a_turned: Mat<f32>,
    scale: f64,
    /// Frobenius norm of `dW` before truncation.
    pub(super) norm: f64,
    /// Relative Frobenius norm of what truncation cut off.
    pub(super) truncation_error: f64,
}

/// The shape of the weight that all terms change, with the kernel of a 1x1 convolution if any of
/// them has it. Checks the factors on the way.
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

/// Refuses numbers that are not finite.
pub(super) fn all_finite(terms: &[Option<Term<'_>>]) -> Result<(), LoraError> {
    for term in terms.iter().flatten() {
        for (key, factor) in [("A", &term.module.a), ("B", &term.module.b)] {
            if !are_finite(&row_major(factor)) {
                return Err(LoraError::NonFinite {
                    key: key.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// `factor * sum_i w_i dW_i`: the factors side by side.
pub(super) fn concatenate(terms: &[Option<Term<'_>>], factor: f64) -> Factors {
    Sum::new(terms, factor).factors()
}

/// `(1/N sum_i w_i B_i) (1/N sum_i w_i A_i)`. When all scales are equal they stay outside, as the
/// paper has it; otherwise the root of each goes into its own factors (and the sign into `B`).
pub(super) fn mean_of_factors(terms: &[Option<Term<'_>>]) -> Result<Factors, LoraError> {
    let present = || terms.iter().flatten();
    let Some(first) = present().next().map(|t| t.module) else {
        return Err(LoraError::NoAdapters);
    };
    equal_ranks(terms)?;
    let mut b_turned = Mat::zeros(first.rank(), first.outputs());
    let mut a_turned = Mat::zeros(first.inputs(), first.rank());
    let common = present().all(|t| t.module.scale() == first.scale());
    for term in present() {
        let (for_b, for_a) = factor_weights(term, terms.len(), common);
        b_turned += faer::Scale(for_b) * term.module.b_turned();
        a_turned += faer::Scale(for_a) * term.module.a_turned();
    }
    let scale = if common { first.scale() } else { 1.0 };
    Ok(Factors {
        b_turned,
        a_turned,
        scale,
    })
}

/// Refuses terms of different ranks, whose factors have no common shape.
pub(super) fn equal_ranks(terms: &[Option<Term<'_>>]) -> Result<(), LoraError> {
    let mut ranks = terms.iter().flatten().map(|term| term.module.rank());
    let Some(expected) = ranks.next() else {
        return Err(LoraError::NoAdapters);
    };
    match ranks.find(|&found| found != expected) {
        Some(found) => Err(LoraError::Ranks { expected, found }),
        None => Ok(()),
    }
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

impl Update<'_> {
    /// Multiplies the update.
    pub(super) fn scaled(self, by: f64) -> Self {
        match self {
            Self::Sum(sum) => Self::Sum(Sum {
                scale: sum.scale * by,
                ..sum
            }),
            Self::Factors(factors) => Self::Factors(Factors {
                scale: factors.scale * by,
                ..factors
            }),
            Self::Dense(turned) => Self::Dense(faer::Scale(by) * turned),
        }
    }

    /// `dW x` for every column of `x [in * kh * kw, ..]`.
    pub(super) fn apply(&self, x: &Mat<f64>) -> Mat<f64> {
        match self {
            Self::Sum(sum) => sum.factors().apply(x),
            Self::Factors(factors) => factors.apply(x),
            Self::Dense(turned) => turned.transpose() * x,
        }
    }

    /// Cuts the rank down to `limit` (none: keeps it) or to what the shape allows.
    pub(super) fn limited(self, limit: Option<usize>) -> Result<Limited, LoraError> {
        match self {
            Self::Sum(sum) => sum.limited(limit),
            Self::Factors(factors) => factors.limited(limit),
            Self::Dense(turned) => {
                let size = turned.nrows().min(turned.ncols());
                let kept = limit.map_or(size, |k| k.min(size));
                if kept < size {
                    let cut = truncate_dense(turned.transpose(), kept)?;
                    return Ok(cut.into());
                }
                let norm = turned.norm_l2();
                // The update itself is one factor, the other does nothing.
                let (a_turned, b_turned) = if turned.ncols() <= turned.nrows() {
                    let unit = Mat::identity(size, size);
                    (turned, unit)
                } else {
                    (Mat::identity(size, size), turned)
                };
                Ok(Factors::balanced(b_turned, a_turned).rounded(norm))
            }
        }
    }
}

impl<'a> Sum<'a> {
    /// `factor * sum_i w_i dW_i`
    pub(super) fn new(terms: &[Option<Term<'a>>], factor: f64) -> Self {
        let terms = terms.iter().flatten().map(|term| Term {
            weight: factor * term.weight,
            ..*term
        });
        Self {
            terms: terms.collect(),
            scale: 1.0,
        }
    }

    fn rank(&self) -> usize {
        self.terms.iter().map(|term| term.module.rank()).sum()
    }

    /// `by * B^T` and `A^T` side by side, without the scale. Each is weighted by the square root of its coefficient, which keeps both in
    /// the range of 16-bit floats; the sign goes into `B`.
    fn stacked<T: Number>(&self, by: f64) -> (Columns<T>, Columns<T>) {
        let (rank, terms) = (self.rank(), &self.terms);
        let rows = terms.iter().map(|t| t.module.outputs()).max().unwrap_or(0);
        let columns = terms.iter().map(|t| t.module.inputs()).max().unwrap_or(0);
        let mut a_turned = Columns::new(columns, rank);
        let mut b_turned = Columns::new(rank, rows);
        let mut sides = Vec::with_capacity(terms.len());
        for term in terms {
            let coefficient = term.coefficient();
            let root = coefficient.abs().sqrt();
            a_turned.push(&row_major(&term.module.a), root);
            sides.push((
                row_major(&term.module.b),
                term.module.rank(),
                by * root.copysign(coefficient),
            ));
        }
        for output in 0..rows {
            for (values, rank, signed) in &sides {
                let row = values.get(output * rank..(output + 1) * rank);
                b_turned.push(row.unwrap_or_default(), *signed);
            }
        }
        (b_turned, a_turned)
    }

    fn factors(&self) -> Factors {
        let (b_turned, a_turned) = self.stacked::<f64>(1.0);
        Factors {
            b_turned: b_turned.as_ref().to_owned(),
            a_turned: a_turned.as_ref().to_owned(),
            scale: self.scale,
        }
    }

    /// As [`Factors::limited`], but with factors that are stacked in `f32` where that is enough.
    fn limited(self, limit: Option<usize>) -> Result<Limited, LoraError> {
        let rank = self.rank();
        let shape = |term: &Term<'_>| (term.module.outputs(), term.module.inputs());
        let (rows, columns) = self.terms.first().map_or((0, 0), shape);
        let kept = limit.map_or(rank, |k| k.min(rows).min(columns));
        if kept >= rank || !gram::single_pays(rows, columns, rank, kept) {
            return self.factors().limited(limit);
        }
        let (b_turned, a_turned) = self.stacked::<f32>(self.scale);
        if let Some(cut) = gram::truncate_product_in(b_turned.as_ref(), a_turned.as_ref(), kept) {
            return Ok(cut.into());
        }
        let (b_turned, a_turned) = self.stacked::<f64>(self.scale);
        Ok(truncate_in_double(b_turned.as_ref(), a_turned.as_ref(), kept)?.into())
    }
}

impl Factors {
    fn apply(&self, x: &Mat<f64>) -> Mat<f64> {
        let inner = self.a_turned.transpose() * x;
        faer::Scale(self.scale) * (self.b_turned.transpose() * inner)
    }

    /// A product whose factors are brought to the same norm, which keeps both in the range of 16-bit
    /// floats.
    pub(super) fn balanced(b_turned: Mat<f64>, a_turned: Mat<f64>) -> Self {
        let ratio = (a_turned.norm_l2() / b_turned.norm_l2()).sqrt();
        if !ratio.is_finite() || ratio == 0.0 {
            return Self {
                b_turned,
                a_turned,
                scale: 1.0,
            };
        }
        Self {
            b_turned: faer::Scale(ratio) * b_turned,
            a_turned: faer::Scale(1.0 / ratio) * a_turned,
            scale: 1.0,
        }
    }

    fn limited(self, limit: Option<usize>) -> Result<Limited, LoraError> {
        let rank = self.a_turned.ncols();
        let size = self.b_turned.ncols().min(self.a_turned.nrows());
        let kept = limit.map_or(rank, |k| k.min(size));
        if kept >= rank {
            let norm = product_norm(&self.b_turned, &self.a_turned) * self.scale.abs();
            return Ok(self.rounded(norm));
        }
        let mut b_turned = self.b_turned;
        if self.scale != 1.0 {
            b_turned *= faer::Scale(self.scale);
        }
        Ok(truncate(&b_turned, &self.a_turned, kept)?.into())
    }

    /// Of an update of this Frobenius norm, nothing of which is cut off.
    fn rounded(self, norm: f64) -> Limited {
        Limited {
            b_turned: Number::single(self.b_turned),
            a_turned: Number::single(self.a_turned),
            scale: self.scale,
            norm,
            truncation_error: 0.0,
        }
    }
}

impl<T: Number> From<Truncated<T>> for Limited {
    fn from(cut: Truncated<T>) -> Self {
        Self {
            b_turned: T::single(cut.b_turned),
            a_turned: T::single(cut.a_turned),
            scale: 1.0,
            norm: cut.norm,
            truncation_error: cut.error,
        }
    }
}

impl Limited {
    /// The factors of a weight of this shape.
    pub(super) fn module(&self, weight_shape: &[usize]) -> Result<LoraModule, LoraError> {
        let Self {
            b_turned,
            a_turned,
            scale,
            ..
        } = self;
        let rank = a_turned.ncols();
        let kernel = weight_shape.get(2..).unwrap_or_default();
        let mut a_shape = vec![rank];
        a_shape.extend(weight_shape.iter().skip(1));
        let mut b_shape = vec![b_turned.ncols(), rank];
        b_shape.extend(kernel.iter().map(|_| 1));
        LoraModule::new(
            to_factor(a_turned, &a_shape)?,
            to_factor(b_turned, &b_shape)?,
            scale * rank as f64,
        )
    }
}
