//! Does a merged module do what the formula says?

use faer::Mat;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::{
    Method,
    combine::{Term, factor_weights},
};
use crate::LoraModule;

/// Random vectors per module: enough that the mean over them is within a factor of a few of what
/// all vectors would give, even for an update of rank 1.
const PROBES: usize = 8;

/// Applies the merged factors, as they will be stored, and the formula on the inputs to the same
/// random vectors; the distance of the results relative to the size of the formula's terms.
pub(super) fn against_formula(
    path: &str,
    method: Method,
    terms: &[Option<Term<'_>>],
    merged: &LoraModule,
) -> f64 {
    let probes = probes(path, merged.inputs());
    let found = faer::Scale(merged.scale()) * by_b(merged, &by_a(merged, &probes));
    let mut expected = Mat::zeros(merged.outputs(), PROBES);
    // Relative to the terms and not to their sum, which may cancel.
    let mut size = 0.0;
    for term in by_formula(method, terms, &probes) {
        size += term.norm_l2();
        expected += term;
    }
    let distance = (found - expected).norm_l2();
    if distance == 0.0 {
        0.0
    } else {
        distance / size
    }
}

/// The terms of the formula, applied to the probes.
fn by_formula(method: Method, terms: &[Option<Term<'_>>], probes: &Mat<f64>) -> Vec<Mat<f64>> {
    let present = || terms.iter().flatten();
    let share = match method {
        Method::Sum => 1.0,
        Method::Mean | Method::Svd | Method::FactorMean => 1.0 / terms.len() as f64,
    };
    if method != Method::FactorMean {
        return present()
            .map(|term| {
                let module = term.module;
                let inner = by_a(module, probes);
                faer::Scale(share * term.weight * module.scale()) * by_b(module, &inner)
            })
            .collect();
    }
    let inner = present()
        .map(|term| {
            let (_, for_a) = factor_weights(term, terms.len(), false);
            faer::Scale(for_a) * by_a(term.module, probes)
        })
        .reduce(|x, y| x + y)
        .unwrap_or_else(Mat::new);
    present()
        .map(|term| {
            let (for_b, _) = factor_weights(term, terms.len(), false);
            faer::Scale(for_b) * by_b(term.module, &inner)
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

fn probes(path: &str, inputs: usize) -> Mat<f64> {
    let key = Sha256::digest(path.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(key.into());
    Mat::from_fn(inputs, PROBES, |_, _| StandardNormal.sample(&mut generator))
}
