//! Sums that keep their rank: a copy of the factors, in one pass.

use faer::{Mat, MatRef};

use super::{check::probes, combine::Term};
use crate::{LoraError, LoraModule, module::row_major};
use ndarray::{ArrayD, IxDyn};

/// Random vectors per module: where nothing is truncated, what is wrong is wrong for all of them.
const PROBES: usize = 4;

/// A sum, and what was seen of it on the way.
#[derive(Debug)]
pub(super) struct ExactSum {
    pub(super) module: LoraModule,
    /// Frobenius norm, estimated: the exact one costs several times what the sum does.
    pub(super) norm: f64,
    pub(super) self_check: f64,
}

/// `lambda * share * sum_i w_i dW_i` for a weight of the shape `weight`: the numbers of
/// [`concatenate`](super::combine::concatenate), without a copy in `f64`.
pub(super) fn exact_sum(
    path: &str,
    terms: &[Option<Term<'_>>],
    share: f64,
    lambda: f64,
    weight: &[usize],
) -> Result<ExactSum, LoraError> {
    let present = || terms.iter().flatten();
    let rank: usize = present().map(|term| term.module.rank()).sum();
    let outputs = weight.first().copied().unwrap_or(0);
    let inputs: usize = weight.iter().skip(1).product();
    let mut a = Vec::with_capacity(rank * inputs);
    let mut b = vec![0.0; outputs * rank];
    let mut start = 0;
    for term in present() {
        let coefficient = share * term.weight * term.module.scale();
        let root = coefficient.abs().sqrt();
        let signed = root.copysign(coefficient);
        let values = row_major(&term.module.a);
        if root == 1.0 {
            a.extend_from_slice(&values);
        } else {
            a.extend(values.iter().map(|&x| (f64::from(x) * root) as f32));
        }
        let r = term.module.rank();
        let values = row_major(&term.module.b);
        for (row, values) in b.chunks_exact_mut(rank).zip(values.chunks_exact(r)) {
            let row = row.get_mut(start..start + r).unwrap_or_default();
            for (target, &x) in row.iter_mut().zip(values) {
                *target = (f64::from(x) * signed) as f32;
            }
        }
        start += r;
    }
    let mut a_shape = vec![rank];
    a_shape.extend(weight.iter().skip(1));
    let mut b_shape = vec![outputs, rank];
    b_shape.extend(weight.iter().skip(2).map(|_| 1));
    let misfit = |found: usize| LoraError::WeightShapes {
        expected: weight.to_vec(),
        found: vec![found],
    };
    let (a_len, b_len) = (a.len(), b.len());
    let module = LoraModule::new(
        ArrayD::from_shape_vec(IxDyn(&a_shape), a).map_err(|_| misfit(a_len))?,
        ArrayD::from_shape_vec(IxDyn(&b_shape), b).map_err(|_| misfit(b_len))?,
        lambda * rank as f64,
    )?;
    let (norm, self_check) = check(path, terms, share * lambda, &module);
    Ok(ExactSum {
        module,
        norm,
        self_check,
    })
}

/// The norm and the distance from the formula, on random vectors and in `f32`, in which the factors
/// are: rounding is a few times 1e-7.
fn check(path: &str, terms: &[Option<Term<'_>>], share: f64, merged: &LoraModule) -> (f64, f64) {
    let vectors = probes(path, merged.inputs(), PROBES);
    let vectors = Mat::from_fn(vectors.nrows(), PROBES, |i, j| *vectors.get(i, j) as f32);
    let mut expected = Mat::zeros(merged.outputs(), vectors.ncols());
    let mut size = 0.0;
    for term in terms.iter().flatten() {
        let coefficient = share * term.weight * term.module.scale();
        let applied = faer::Scale(coefficient) * apply(term.module, &vectors);
        size += applied.norm_l2();
        expected += applied;
    }
    let found = faer::Scale(merged.scale()) * apply(merged, &vectors);
    let distance = (found - &expected).norm_l2();
    // The expected square of the length of M x, for x of independent normal numbers, is ||M||^2.
    let norm = expected.norm_l2() / (PROBES as f64).sqrt();
    (
        norm,
        if distance == 0.0 {
            0.0
        } else {
            distance / size
        },
    )
}

/// `B A x`
fn apply(module: &LoraModule, x: &Mat<f32>) -> Mat<f64> {
    let (a, b) = (row_major(&module.a), row_major(&module.b));
    let (rank, inputs, outputs) = (module.rank(), module.inputs(), module.outputs());
    let a = MatRef::from_row_major_slice(&a, rank, inputs);
    let b = MatRef::from_row_major_slice(&b, outputs, rank);
    let applied = b * (a * x);
    Mat::from_fn(outputs, x.ncols(), |i, j| f64::from(*applied.get(i, j)))
}
