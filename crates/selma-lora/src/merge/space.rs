//! Spaces: in which form the updates of one module meet, and the way back to factors.

use faer::{Mat, MatRef};
use ndarray::Array2;

use super::combine::{Factors, Term, Update, equal_ranks};
use crate::{
    LoraError,
    linalg::{columns_basis, from_turned, to_turned},
};

/// Where entries are compared and combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// `A` and `B` apart. The product of merged factors has cross terms `B_i A_j`.
    Factors(Split),
    /// The dense update.
    Dense,
    /// The basis that all updates share on the output side (KnOTS): `[dW_1 .. dW_T] = U S V^T`, and
    /// the tensors are `U^T dW_i`.
    Knots,
    /// The bases of the stacked factors (Core Space): `U^T dW_i V` with the left singular vectors `U`
    /// of `[B_1 .. B_T]` and the right ones `V` of the stacked `A_i`.
    Core,
}

/// How scale and weight of an adapter are divided between its factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// The root into both, the sign into `A` (PEFT).
    Root,
    /// The weight into both, with the root of alpha relative to that of the first adapter; the sign
    /// stays in `A` (sd-scripts `merge_lora.py`).
    Kohya,
}

/// Tensors of the same meaning, one per adapter that has the module.
#[derive(Debug)]
pub(super) struct Part {
    /// What masks call it.
    pub(super) name: &'static str,
    pub(super) tensors: Vec<Array2<f64>>,
    pub(super) weights: Vec<f64>,
}

/// The way back from merged tensors.
#[derive(Debug)]
pub(super) enum Frame {
    /// The merged factors are multiplied by this.
    Factors { scale: f64 },
    /// The merged tensor is the update.
    Dense,
    /// The merged tensor is multiplied by bases, turned: `left^T [k, out]`, `right [in, l]`.
    Bases {
        left: Mat<f64>,
        right: Option<Mat<f64>>,
    },
}

impl Space {
    /// Brings the updates into this space.
    pub(super) fn enter(self, terms: &[Option<Term<'_>>]) -> Result<(Vec<Part>, Frame), LoraError> {
        match self {
            Self::Factors(split) => factors(split, terms),
            Self::Dense => Ok((vec![dense(terms)], Frame::Dense)),
            Self::Knots => knots(terms),
            Self::Core => core(terms),
        }
    }
}

impl Frame {
    /// Brings the merged tensors back.
    pub(super) fn leave(self, merged: &[Array2<f64>]) -> Update<'static> {
        let mut turned = merged.iter().map(to_turned);
        let first = turned.next().unwrap_or_else(Mat::new);
        match self {
            Self::Factors { scale } => Update::Factors(Factors {
                a_turned: first,
                b_turned: turned.next().unwrap_or_else(Mat::new),
                scale,
            }),
            Self::Dense => Update::Dense(first),
            Self::Bases { left, right: None } => Update::Factors(Factors::balanced(left, first)),
            // The smaller side of the core becomes the rank. `first` is the core turned: [l, k].
            Self::Bases {
                left,
                right: Some(right),
            } if first.nrows() < first.ncols() => {
                Update::Factors(Factors::balanced(first * left, right))
            }
            Self::Bases {
                left,
                right: Some(right),
            } => Update::Factors(Factors::balanced(left, right * first)),
        }
    }
}

impl Split {
    /// What `B_i` and `A_i` of every term are multiplied by before they are added up, and what the product of
    /// the sums is.
    ///
    /// # Errors
    /// [`LoraError::BadAlpha`] for an alpha whose share cannot be said relative to that of the first adapter.
    pub(super) fn weights(
        self,
        terms: &[Option<Term<'_>>],
    ) -> Result<(Vec<(f64, f64)>, f64), LoraError> {
        let mut scale = 1.0;
        let mut base_alpha = None;
        let weights = terms.iter().flatten().map(|term| match self {
            Self::Root => {
                let coefficient = term.coefficient();
                let root = coefficient.abs().sqrt();
                Ok((root, root.copysign(coefficient)))
            }
            Self::Kohya => {
                let alpha = term.module.alpha;
                let base: f64 = *base_alpha.get_or_insert(alpha);
                let relative = alpha / base;
                // Also for a base of zero; kohya's own root is NaN here.
                if !(relative.is_finite() && relative >= 0.0) {
                    return Err(LoraError::BadAlpha {
                        alpha: format!("{alpha} (that of the first adapter is {base})"),
                    });
                }
                scale = base / term.module.rank() as f64;
                let ratio = term.weight * relative.sqrt();
                Ok((ratio.abs(), ratio))
            }
        });
        let weights = weights.collect::<Result<_, LoraError>>()?;
        Ok((weights, scale))
    }
}

/// `A_i [r, n]` and `B_i [m, r]`.
fn factors(split: Split, terms: &[Option<Term<'_>>]) -> Result<(Vec<Part>, Frame), LoraError> {
    equal_ranks(terms)?;
    let (weights, scale) = split.weights(terms)?;
    let mut a = Part::named("A");
    let mut b = Part::named("B");
    for (term, (for_b, for_a)) in terms.iter().flatten().zip(weights) {
        a.push(from_turned(&term.module.a_turned()), for_a);
        b.push(from_turned(&term.module.b_turned()), for_b);
    }
    Ok((vec![a, b], Frame::Factors { scale }))
}

/// `dW_i [m, n]`, the weights apart.
fn dense(terms: &[Option<Term<'_>>]) -> Part {
    let mut part = Part::named("dW");
    for term in terms.iter().flatten() {
        let module = term.module;
        let delta = faer::Scale(module.scale()) * (module.a_turned() * module.b_turned());
        part.push(from_turned(&delta), term.weight);
    }
    part
}

/// `U^T w_i dW_i [k, n]`. With `[B_1 .. B_T] = Q R` and `A_i^T = Q_i R_i`, the left singular vectors
/// of all updates side by side are `Q` times those of the small `[w_i s_i R^i R_i^T]`.
fn knots(terms: &[Option<Term<'_>>]) -> Result<(Vec<Part>, Frame), LoraError> {
    let (q, cores) = left_factors(terms);
    let total: usize = cores.iter().map(Mat::ncols).sum();
    let mut joined = Mat::zeros(q.ncols(), total);
    let mut start = 0;
    for (core, term) in cores.iter().zip(terms.iter().flatten()) {
        let right = term.module.a_turned().qr();
        let block = core * right.thin_R().transpose();
        joined.subcols_mut(start, block.ncols()).copy_from(&block);
        start += block.ncols();
    }
    let joined = joined.subcols(0, start);
    let p = columns_basis(joined, true)?;
    let mut part = Part::named("knots");
    for (core, term) in cores.iter().zip(terms.iter().flatten()) {
        let turned = term.module.a_turned() * (p.transpose() * core).transpose();
        part.push(from_turned(&turned), 1.0);
    }
    let left = (q * p).transpose().to_owned();
    Ok((vec![part], Frame::Bases { left, right: None }))
}

/// `Q` of the thin QR decomposition of `[B_1 .. B_T]`, and the blocks of `R` times `w_i s_i`.
fn left_factors(terms: &[Option<Term<'_>>]) -> (Mat<f64>, Vec<Mat<f64>>) {
    let qr = stacked(terms, |term| term.module.b_turned().transpose().to_owned()).qr();
    let mut start = 0;
    let blocks = terms
        .iter()
        .flatten()
        .map(|term| {
            let rank = term.module.rank();
            let block = faer::Scale(term.coefficient()) * qr.thin_R().subcols(start, rank);
            start += rank;
            block
        })
        .collect();
    (qr.compute_thin_Q(), blocks)
}

/// `U^T w_i dW_i V [k, l]`
fn core(terms: &[Option<Term<'_>>]) -> Result<(Vec<Part>, Frame), LoraError> {
    let b_stack = stacked(terms, |term| term.module.b_turned().transpose().to_owned());
    let a_stack = stacked(terms, |term| term.module.a_turned());
    let left = columns_basis(b_stack.as_ref(), false)?;
    let right = columns_basis(a_stack.as_ref(), false)?;
    let mut part = Part::named("core");
    for term in terms.iter().flatten() {
        let module = term.module;
        let b = module.b_turned() * &left;
        let a = right.transpose() * module.a_turned();
        part.push(
            from_turned(&(faer::Scale(term.coefficient()) * (a * b))),
            1.0,
        );
    }
    let frame = Frame::Bases {
        left: left.transpose().to_owned(),
        right: Some(right),
    };
    Ok((vec![part], frame))
}

/// The factors of all terms side by side, one column per rank.
fn stacked(terms: &[Option<Term<'_>>], factor: impl Fn(&Term<'_>) -> Mat<f64>) -> Mat<f64> {
    let blocks: Vec<Mat<f64>> = terms.iter().flatten().map(factor).collect();
    let columns = blocks.iter().map(Mat::ncols).sum();
    let mut all = Mat::zeros(blocks.first().map_or(0, Mat::nrows), columns);
    let mut start = 0;
    for block in &blocks {
        let block: MatRef<'_, f64> = block.as_ref();
        all.subcols_mut(start, block.ncols()).copy_from(block);
        start += block.ncols();
    }
    all
}

impl Part {
    fn named(name: &'static str) -> Self {
        Self {
            name,
            tensors: Vec::new(),
            weights: Vec::new(),
        }
    }

    fn push(&mut self, tensor: Array2<f64>, weight: f64) {
        self.tensors.push(tensor);
        self.weights.push(weight);
    }
}
