//! Does a merged module do what the formula says?

use faer::Mat;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::{
    apply::apply,
    combine::{Limited, Term, Update},
    pipeline::Formula,
};
use crate::{LoraError, LoraModule};

/// Random vectors per module: enough that the mean over them is within a factor of a few of what
/// all vectors would give, even for an update of rank 1.
const PROBES: usize = 8;

/// What rounding to `f32` explains, several times over.
const ROUNDING: f64 = 1e-5;

/// How many times larger than the truncation error the part that is lost of the random vectors may be. Of eight of them
/// three times has a probability of 1e-11, even for a loss of rank 1.
const SPREAD: f64 = 4.0;

/// Random vectors and what the formula makes of them.
#[derive(Debug)]
pub(super) struct Probes {
    vectors: Mat<f64>,
    expected: Mat<f64>,
    /// Relative to the formula's terms and not to their sum, which may cancel.
    size: f64,
}

impl Probes {
    /// Applies the formula, computed anew from the inputs; without one it is the update before truncation and
    /// rounding.
    pub(super) fn new(
        path: &str,
        update: &Update<'_>,
        formula: Option<&Formula>,
        lambda: f64,
        terms: &[Option<Term<'_>>],
    ) -> Self {
        let inputs = terms.iter().flatten().map(|t| t.module.inputs());
        let vectors = probes(path, inputs.max().unwrap_or(0), PROBES);
        let parts = match formula {
            Some(formula) => by_formula(formula, lambda, terms, &vectors),
            None => vec![update.apply(&vectors)],
        };
        let size = parts.iter().map(Mat::norm_l2).sum();
        let expected = parts.into_iter().reduce(|x, y| x + y);
        Self {
            vectors,
            expected: expected.unwrap_or_else(Mat::new),
            size,
        }
    }

    /// How far the factors, as they will be stored, are from the formula, relative to its size.
    ///
    /// What was truncated should be the formula projected on the columns of the merged `B`, the best approximation within these: what
    /// it misses is orthogonal to all of them, so that no error hides behind the one of truncation. That one is held
    /// against what was reported.
    ///
    /// # Errors
    /// [`LoraError::SelfCheck`] for a module that is further off than rounding and truncation explain.
    pub(super) fn check(&self, merged: &LoraModule, limited: &Limited) -> Result<f64, LoraError> {
        let found = faer::Scale(merged.scale()) * by_b(merged, &by_a(merged, &self.vectors));
        if limited.truncation_error == 0.0 {
            let off = self.relative((found - &self.expected).norm_l2());
            return accept(off, ROUNDING).map(|()| off);
        }
        let missed = &self.expected - found;
        let zeros = limited.truncation_error <= ROUNDING;
        let off = self.relative(along_columns(merged, &missed, zeros));
        accept(off, ROUNDING)?;
        let lost = self.relative(missed.norm_l2());
        // The expected length of M x, for x of independent normal numbers, is that of M.
        let reported = limited.norm * limited.truncation_error * (PROBES as f64).sqrt();
        accept(lost, ROUNDING + SPREAD * self.relative(reported))?;
        Ok(off)
    }

    fn relative(&self, distance: f64) -> f64 {
        if distance == 0.0 {
            0.0
        } else {
            distance / self.size
        }
    }
}

/// The length of the parts of vectors `[out, ..]` along the columns of `B`, which are orthogonal where a module was truncated as it
/// should be. A column of zeros has no direction: there are some only where nothing was cut off, and else the result is infinite.
fn along_columns(module: &LoraModule, vectors: &Mat<f64>, zeros: bool) -> f64 {
    let b_turned = module.b_turned();
    let mut squares = vec![0.0; b_turned.nrows()];
    for output in b_turned.col_iter() {
        let entries = squares.iter_mut().zip(output.iter());
        entries.for_each(|(square, x)| *square += x * x);
    }
    let products = b_turned * vectors;
    let along = products.row_iter().zip(&squares);
    let along = along.map(|(products, &square)| match square {
        0.0 if zeros => 0.0,
        0.0 => f64::INFINITY,
        square => products.squared_norm_l2() / square,
    });
    along.sum::<f64>().sqrt()
}

/// How far a module is from what is stored of it, on random vectors and relative to the module.
pub(super) fn rounding(path: &str, module: &LoraModule, stored: &LoraModule) -> f64 {
    let vectors = probes(path, module.inputs(), PROBES);
    let apply =
        |module: &LoraModule| faer::Scale(module.scale()) * by_b(module, &by_a(module, &vectors));
    let whole = apply(module);
    let off = (apply(stored) - &whole).norm_l2();
    if off == 0.0 {
        0.0
    } else {
        off / whole.norm_l2()
    }
}

/// Refuses a sum that keeps its ranks and is further from its formula than rounding explains.
pub(super) fn accept_exact(found: f64) -> Result<(), LoraError> {
    accept(found, ROUNDING)
}

fn accept(found: f64, limit: f64) -> Result<(), LoraError> {
    // Not `found > limit`: a NaN must not pass.
    if matches!(found.partial_cmp(&limit), Some(order) if order.is_le()) {
        return Ok(());
    }
    Err(LoraError::SelfCheck { found, limit })
}

/// The terms of the formula, applied to the probes.
fn by_formula(
    formula: &Formula,
    lambda: f64,
    terms: &[Option<Term<'_>>],
    probes: &Mat<f64>,
) -> Vec<Mat<f64>> {
    let modules = || terms.iter().flatten().map(|term| term.module);
    match formula {
        Formula::Sum(numbers) => modules()
            .zip(numbers)
            .map(|(module, number)| {
                let inner = by_a(module, probes);
                faer::Scale(lambda * number * module.scale()) * by_b(module, &inner)
            })
            .collect(),
        Formula::Product { scale, weights } => {
            let inner = modules()
                .zip(weights)
                .map(|(module, (_, for_a))| faer::Scale(*for_a) * by_a(module, probes))
                .reduce(|x, y| x + y)
                .unwrap_or_else(Mat::new);
            modules()
                .zip(weights)
                .map(|(module, (for_b, _))| {
                    faer::Scale(lambda * scale * for_b) * by_b(module, &inner)
                })
                .collect()
        }
    }
}

/// `A x`
fn by_a(module: &LoraModule, x: &Mat<f64>) -> Mat<f64> {
    apply(&module.a, x)
}

/// `B x`
fn by_b(module: &LoraModule, x: &Mat<f64>) -> Mat<f64> {
    apply(&module.b, x)
}

/// Normal numbers `[inputs, count]` that `f32` can hold, the same for a module on every run.
pub(super) fn probes(path: &str, inputs: usize, count: usize) -> Mat<f64> {
    let key = Sha256::digest(path.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(key.into());
    Mat::from_fn(inputs, count, |_, _| {
        let x: f64 = StandardNormal.sample(&mut generator);
        f64::from(x as f32)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        Merge, Method,
        pipeline::{Context, Pipeline},
        tests::module,
    };
    use super::*;

    const PATH: &str = "unet.x";

    /// Everything up to the check, of an update that is `wrong` times what it should be.
    fn merged(merge: &Merge, wrong: f64) -> (Probes, Limited, LoraModule) {
        let modules = [(3, 3.0, 1), (3, 2.0, 2)]
            .map(|(rank, alpha, seed)| module(PATH, &[16, 16], rank, alpha, seed));
        let terms: Vec<_> = modules
            .iter()
            .zip([1.0, 0.5])
            .map(|(module, weight)| Some(Term { module, weight }))
            .collect();
        let context = Context {
            merge,
            path: PATH,
            terms: &terms,
            total_weight: 1.5,
        };
        let pipeline = Pipeline::of(merge.method, terms.len());
        let formula = pipeline.formula(context).unwrap();
        let numbers = formula.as_ref().map(Formula::numbers);
        let update = pipeline.run(context, numbers.unwrap_or_default()).unwrap();
        let update = update.scaled(wrong);
        let lambda = merge.lambda_or_default();
        let probes = Probes::new(PATH, &update, formula.as_ref(), lambda, &terms);
        let limited = update.limited(merge.rank).unwrap();
        let module = limited.module(&[16, 16]).unwrap();
        (probes, limited, module)
    }

    fn is_refused(found: &Result<f64, LoraError>, what: &str) {
        let refused = matches!(found, Err(LoraError::SelfCheck { .. }));
        assert!(refused, "{what}: {found:?}");
    }

    #[test]
    fn a_truncated_module_that_is_wrong_is_refused() {
        for method in [Method::Svd, Method::MkTies, Method::CoreTies, Method::Tsv] {
            let density = matches!(method, Method::MkTies | Method::CoreTies).then_some(0.5);
            let merge = Merge {
                density,
                ..Merge::new(method).with_rank(2)
            };
            let (probes, limited, right) = merged(&merge, 1.0);
            assert!(limited.truncation_error > 0.1, "{method}");
            let off = probes.check(&right, &limited).unwrap();
            assert!(off < 1e-6, "{method}: {off}");
            let with = |a: &dyn Fn(f32) -> f32, b: &dyn Fn(f32) -> f32| LoraModule {
                a: right.a.mapv(a),
                b: right.b.mapv(b),
                alpha: right.alpha,
            };
            let same = |x: f32| x;
            let zero = |_: f32| 0.0;
            for (what, wrong) in [
                ("zero B", with(&same, &zero)),
                ("zero A", with(&zero, &same)),
                ("negated", with(&same, &|x| -x)),
                ("doubled", with(&|x| 2.0 * x, &same)),
                (
                    "transposed",
                    LoraModule {
                        a: right.b.t().to_owned(),
                        b: right.a.t().to_owned(),
                        alpha: right.alpha,
                    },
                ),
            ] {
                is_refused(&probes.check(&wrong, &limited), what);
            }
        }
    }

    #[test]
    fn a_worse_approximation_than_reported_is_refused() {
        let (probes, limited, whole) = merged(&Merge::new(Method::Svd).with_rank(5), 1.0);
        assert!(limited.truncation_error < 0.2);
        probes.check(&whole, &limited).unwrap();
        // Its last direction alone is a projection of the formula as well.
        let last = LoraModule {
            a: whole.a.slice(ndarray::s![4.., ..]).to_owned().into_dyn(),
            b: whole.b.slice(ndarray::s![.., 4..]).to_owned().into_dyn(),
            alpha: whole.alpha / 5.0,
        };
        is_refused(&probes.check(&last, &limited), "the last direction");
    }

    #[test]
    fn sums_and_products_of_factors_are_computed_anew() {
        for method in [
            Method::Mean,
            Method::FactorMean,
            Method::PeftLinear,
            Method::PeftLinearSvd,
            Method::MkTaskArithmetic,
            Method::MkSlerp,
            Method::MkNuslerp,
            Method::MkModelStock,
            Method::MkKarcher,
            Method::Kohya,
            Method::KnotsSum,
            Method::CoreSum,
        ] {
            for rank in [None, Some(2)] {
                let merge = Merge {
                    rank,
                    lambda: Some(0.7),
                    ..Merge::new(method)
                };
                let (probes, limited, module) = merged(&merge, 1.0);
                let off = probes.check(&module, &limited).unwrap();
                assert!(off < 1e-6, "{method}: {off}");
                let (probes, limited, module) = merged(&merge, 1.001);
                is_refused(&probes.check(&module, &limited), method.name());
            }
        }
    }
}
