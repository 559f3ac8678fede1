//! Does a merged module do what the formula says?

use faer::Mat;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::{
    combine::{Update, factor_weights},
    pipeline::{Context, Pipeline, Stacked},
};
use crate::{LoraError, LoraModule};

/// Random vectors per module: enough that the mean over them is within a factor of a few of what
/// all vectors would give, even for an update of rank 1.
const PROBES: usize = 8;

/// Random vectors and what the formula makes of them.
#[derive(Debug)]
pub(super) struct Probes {
    vectors: Mat<f64>,
    expected: Mat<f64>,
    /// Relative to the formula's terms and not to their sum, which may cancel.
    size: f64,
}

impl Probes {
    /// Applies the formula. Methods that are linear in the updates and the mean of factors are
    /// computed anew from the inputs; the formula of the others is the update before truncation and
    /// rounding.
    pub(super) fn new(
        path: &str,
        update: &Update,
        pipeline: Pipeline,
        context: Context<'_>,
    ) -> Self {
        let inputs = context.terms.iter().flatten().map(|t| t.module.inputs());
        let vectors = probes(path, inputs.max().unwrap_or(0), PROBES);
        let terms = by_formula(update, pipeline, context, &vectors);
        let mut expected: Option<Mat<f64>> = None;
        let mut size = 0.0;
        for term in terms {
            size += term.norm_l2();
            expected = Some(match expected {
                Some(sum) => sum + term,
                None => term,
            });
        }
        Self {
            vectors,
            expected: expected.unwrap_or_else(Mat::new),
            size,
        }
    }

    /// How far the factors, as they will be stored, are from the formula, relative to its size.
    pub(super) fn distance(&self, merged: &LoraModule) -> f64 {
        let found = faer::Scale(merged.scale()) * by_b(merged, &by_a(merged, &self.vectors));
        let distance = (found - &self.expected).norm_l2();
        if distance == 0.0 {
            0.0
        } else {
            distance / self.size
        }
    }
}

/// Refuses a module that is further from its formula than this much truncation explains.
pub(super) fn accept(found: f64, truncation_error: f64) -> Result<(), LoraError> {
    // Probes see the truncation error give or take their own randomness, and rounding to f32.
    let limit = 1e-5 + 10.0 * truncation_error;
    // Not `found > limit`: a NaN must not pass.
    if matches!(found.partial_cmp(&limit), Some(order) if order.is_le()) {
        return Ok(());
    }
    Err(LoraError::SelfCheck { found, limit })
}

/// The terms of the formula, applied to the probes.
fn by_formula(
    update: &Update,
    pipeline: Pipeline,
    context: Context<'_>,
    probes: &Mat<f64>,
) -> Vec<Mat<f64>> {
    let Context { merge, terms, .. } = context;
    let present = || terms.iter().flatten();
    let lambda = merge.lambda_or_default();
    let share = 1.0 / terms.len() as f64;
    if pipeline == Pipeline::Stacked(Stacked::FactorMean) {
        let inner = present()
            .map(|term| {
                let (_, for_a) = factor_weights(term, terms.len(), false);
                faer::Scale(for_a) * by_a(term.module, probes)
            })
            .reduce(|x, y| x + y)
            .unwrap_or_else(Mat::new);
        return present()
            .map(|term| {
                let (for_b, _) = factor_weights(term, terms.len(), false);
                faer::Scale(lambda * for_b) * by_b(term.module, &inner)
            })
            .collect();
    }
    if !pipeline.is_linear() {
        return vec![update.apply(probes)];
    }
    let share = if pipeline == Pipeline::Stacked(Stacked::Mean) {
        lambda * share
    } else {
        lambda
    };
    present()
        .map(|term| {
            let module = term.module;
            let inner = by_a(module, probes);
            faer::Scale(share * term.weight * module.scale()) * by_b(module, &inner)
        })
        .collect()
}

/// `A x`
fn by_a(module: &LoraModule, x: &Mat<f64>) -> Mat<f64> {
    module.a_turned().transpose() * x
}

/// `B x`
fn by_b(module: &LoraModule, x: &Mat<f64>) -> Mat<f64> {
    module.b_turned().transpose() * x
}

/// Normal numbers `[inputs, count]`, the same for a module on every run.
pub(super) fn probes(path: &str, inputs: usize, count: usize) -> Mat<f64> {
    let key = Sha256::digest(path.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(key.into());
    Mat::from_fn(inputs, count, |_, _| StandardNormal.sample(&mut generator))
}
