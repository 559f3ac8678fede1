//! Properties of merges: whatever the adapters are, this holds.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use std::{collections::BTreeMap, sync::Arc};

use ndarray::{Array2, ArrayD, IxDyn};
use proptest::{collection::vec, prelude::*};
use selma_lora::{
    Adapter, Dtype, Format, LoraModule, Merge, Method, RankRule, Weighted,
    merge::{Calibration, Statistics},
};

/// A linear layer, a 1x1 and a 3x3 convolution.
const LAYERS: [(&str, &[usize]); 3] = [
    (
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        &[],
    ),
    ("unet.mid_block.attentions.0.proj_in", &[1, 1]),
    ("unet.mid_block.resnets.0.conv1", &[3, 3]),
];

const FORMATS: [Format; 4] = [
    Format::Kohya,
    Format::Diffusers,
    Format::DiffusersScript,
    Format::Peft,
];

/// Methods whose result is the sum of the weighted updates, times a number.
const EXACT: [Method; 7] = [
    Method::Sum,
    Method::Mean,
    Method::Svd,
    Method::PeftLinearSvd,
    Method::MkTaskArithmetic,
    Method::KnotsSum,
    Method::CoreSum,
];

#[derive(Debug, Clone)]
struct Inputs {
    adapters: Vec<Adapter>,
    weights: Vec<f64>,
}

impl Inputs {
    fn weighted(&self) -> Vec<Weighted<'_>> {
        self.adapters
            .iter()
            .zip(&self.weights)
            .map(|(adapter, &weight)| Weighted { adapter, weight })
            .collect()
    }
}

/// Values from -1 to 1 that differ from place to place.
fn values(shape: &[usize], seed: u32) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn module(
    out: usize,
    inputs: usize,
    kernel: &[usize],
    rank: usize,
    alpha: f64,
    seed: u32,
) -> LoraModule {
    let a = [&[rank, inputs], kernel].concat();
    let b = [vec![out, rank], vec![1; kernel.len()]].concat();
    LoraModule::new(values(&a, seed), values(&b, !seed), alpha).unwrap()
}

/// What differs from adapter to adapter in one layer: rank, alpha, values, and whether it is there.
type Part = (usize, f64, u32, bool);

fn part(rank: impl Strategy<Value = usize>) -> impl Strategy<Value = Part> {
    let alpha = prop_oneof![(1..9_i32).prop_map(f64::from), -4.0..4.0_f64];
    // What a file of f32 holds.
    let alpha = alpha.prop_map(|alpha| f64::from(alpha as f32));
    (rank, alpha, any::<u32>(), prop::bool::weighted(0.8))
}

/// Some adapters for one model: small layers, unequal ranks and alphas, modules that are missing.
fn inputs(count: std::ops::Range<usize>) -> impl Strategy<Value = Inputs> {
    let sizes = vec((2..10_usize, 1..8_usize), LAYERS.len());
    let weight = prop_oneof![Just(1.0), -2.0..2.0_f64];
    let one = (vec(part(1..6_usize), LAYERS.len()), weight);
    (sizes, vec(one, count)).prop_map(|(sizes, parts)| {
        let (adapters, weights) = parts
            .into_iter()
            .map(|(parts, weight)| {
                let mut adapter = Adapter::default();
                let layers = LAYERS.iter().zip(&sizes).zip(parts);
                for ((&(path, kernel), &(out, inputs)), (rank, alpha, seed, there)) in layers {
                    // Never an adapter of nothing.
                    if there || adapter.modules.is_empty() {
                        let module = module(out, inputs, kernel, rank, alpha, seed);
                        adapter.modules.insert(path.to_owned(), module);
                    }
                }
                (adapter, weight)
            })
            .unzip();
        Inputs { adapters, weights }
    })
}

/// A recipe with every option that the method needs and nothing cut off.
fn whole(method: Method, inputs: &[Weighted<'_>]) -> Merge {
    let mut merge = Merge::new(method);
    // More than there is, for LEGO more groups than units.
    merge.rank = Some(usize::MAX);
    if method == Method::Robust {
        merge.lambda = Some(1.0);
    }
    if method == Method::Ssr {
        merge.calibration = Some(Arc::new(calibration(inputs)));
    }
    let dense = Merge {
        density: Some(1.0),
        ..merge.clone()
    };
    let weights = || inputs.iter().map(|input| input.weight);
    if dense.validate(weights()).is_ok() {
        dense
    } else {
        merge
    }
}

/// Every adapter sees data of its own.
fn calibration(inputs: &[Weighted<'_>]) -> Calibration {
    LAYERS
        .iter()
        .map(|(path, _)| {
            let modules = inputs.iter().filter_map(|x| x.adapter.modules.get(*path));
            let ranks: Vec<usize> = modules.map(LoraModule::rank).collect();
            let mut statistics = Statistics::new(&ranks);
            let total: usize = ranks.iter().sum();
            for adapter in 0..ranks.len() {
                let z = values(&[20, total], adapter as u32)
                    .into_dimensionality()
                    .unwrap();
                statistics.add(adapter, &z.view()).unwrap();
            }
            ((*path).to_owned(), statistics)
        })
        .collect()
}

/// Through a file, or a folder, and back.
fn through(adapter: &Adapter, format: Format) -> Adapter {
    if format == Format::Peft {
        // The bytes alone would not have the alphas.
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), format, Dtype::F32).unwrap();
        return Adapter::load(folder.path()).unwrap();
    }
    let bytes = adapter.to_bytes(format, Dtype::F32).unwrap();
    Adapter::from_bytes(&bytes, None).unwrap()
}

fn norm(x: &Array2<f64>) -> f64 {
    x.mapv(|x| x * x).sum().sqrt()
}

/// The sum of the weighted updates of a layer, and the size that rounding errors are relative to.
fn dense_sum(inputs: &[Weighted<'_>]) -> BTreeMap<String, (Array2<f64>, f64)> {
    let mut sums: BTreeMap<String, (Array2<f64>, f64)> = BTreeMap::new();
    for input in inputs {
        for (path, module) in &input.adapter.modules {
            let delta = module.delta_f64().unwrap() * input.weight;
            let zero = || (Array2::zeros(delta.dim()), 0.0);
            let (sum, size) = sums.entry(path.clone()).or_insert_with(zero);
            *sum += &delta;
            *size += norm(&delta);
        }
    }
    sums
}

/// The largest distance of a module from what is expected of it, relative to the size of the inputs.
fn worst(merged: &Adapter, expected: &BTreeMap<String, (Array2<f64>, f64)>, factor: f64) -> f64 {
    assert!(merged.modules.keys().eq(expected.keys()));
    merged
        .modules
        .iter()
        .map(|(path, module)| {
            let (sum, size) = &expected[path];
            let distance = norm(&(module.delta_f64().unwrap() - sum * factor));
            distance / (size * factor.abs()).max(f64::MIN_POSITIVE)
        })
        .fold(0.0, f64::max)
}

/// Updates of two adapters, relative to the sizes in `inputs`.
fn apart(x: &Adapter, y: &Adapter, inputs: &[Weighted<'_>]) -> f64 {
    let sizes = dense_sum(inputs);
    let expected = y
        .modules
        .iter()
        .map(|(path, module)| (path.clone(), (module.delta_f64().unwrap(), sizes[path].1)))
        .collect();
    worst(x, &expected, 1.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exact_methods_are_all_branches_at_once(
        mut inputs in inputs(1..5),
        lambda in -2.0..2.0_f64,
        switched_off in prop::bool::weighted(0.2),
    ) {
        // An alpha of zero is an update of zero.
        if switched_off {
            inputs.adapters[0].modules.values_mut().for_each(|module| module.alpha = 0.0);
        }
        let weighted = inputs.weighted();
        let expected = dense_sum(&weighted);
        for method in EXACT {
            let merge = Merge { lambda: Some(lambda), ..whole(method, &weighted) };
            let (merged, report) = merge.run(&weighted).unwrap();
            let mean = matches!(method, Method::Mean | Method::Svd);
            let factor = if mean { lambda / weighted.len() as f64 } else { lambda };
            let error = worst(&merged, &expected, factor);
            prop_assert!(error < 1e-6, "{}: {:e}", method, error);
            prop_assert!(report.self_check < 1e-5 && report.truncation_error < 1e-6, "{}", method);
        }
    }

    #[test]
    fn one_adapter_with_weight_one_is_itself(inputs in inputs(1..2)) {
        let one = [Weighted::from(&inputs.adapters[0])];
        let expected = dense_sum(&one);
        for method in Method::ALL {
            // Two adapters are needed; all singular values become equal.
            if matches!(method, Method::MkSlerp | Method::MkNuslerp | Method::CoreIso) {
                continue;
            }
            // LEGO keeps as many units as the largest rank.
            let (merged, _) = whole(method, &one).run(&one).unwrap();
            let error = worst(&merged, &expected, 1.0);
            // RobustMerge's guard against division by zero is 1e-6 beside values that can be small.
            let limit = if method == Method::Robust { 1e-4 } else { 1e-6 };
            prop_assert!(error < limit, "{}: {:e}", method, error);
        }
    }

    #[test]
    fn the_order_does_not_matter(inputs in inputs(2..5), turn in 1..4_usize) {
        let weighted = inputs.weighted();
        let mut turned = weighted.clone();
        turned.rotate_left(turn % weighted.len());
        for method in EXACT {
            let merge = whole(method, &weighted);
            let (one, _) = merge.run(&weighted).unwrap();
            let (other, _) = merge.run(&turned).unwrap();
            let error = apart(&one, &other, &weighted);
            prop_assert!(error < 1e-6, "{}: {:e}", method, error);
        }
    }

    #[test]
    fn the_mean_of_factors_is_linear_of_peft_by_the_number(inputs in inputs(1..5), rank in 1..6_usize) {
        // Both average A and B; PEFT puts the root of every weight on each. With equal ranks and scales:
        let adapters: Vec<Adapter> = inputs.adapters.iter().map(|adapter| {
            Adapter::new(inputs.adapters[0].modules.iter().enumerate().map(|(i, (path, module))| {
                let [out, cols] = [module.outputs(), module.weight_shape()[1]];
                let seed = adapter.modules.values().next().unwrap().a.iter().next().unwrap().to_bits();
                let kernel = &module.weight_shape()[2..];
                let module = self::module(out, cols, kernel, rank, 3.0, seed.wrapping_add(i as u32));
                (path.clone(), module)
            }))
        }).collect();
        let count = adapters.len() as f64;
        let all = |weight| -> Vec<Weighted<'_>> {
            adapters.iter().map(|adapter| Weighted { adapter, weight }).collect()
        };
        let (mean, _) = Merge::new(Method::FactorMean).run(&all(1.0)).unwrap();
        let linear = Merge { lambda: Some(1.0 / count), ..Merge::new(Method::PeftLinear) };
        let (linear, _) = linear.run(&all(1.0 / count)).unwrap();
        let error = apart(&mean, &linear, &all(1.0));
        prop_assert!(error < 1e-6, "{:e}", error);
    }

    #[test]
    fn doubling_alpha_is_doubling_the_weight(inputs in inputs(1..4)) {
        let mut doubled = inputs.clone();
        for adapter in &mut doubled.adapters {
            for module in adapter.modules.values_mut() {
                module.alpha *= 2.0;
            }
        }
        let mut heavier = inputs.clone();
        for weight in &mut heavier.weights {
            *weight *= 2.0;
        }
        for method in EXACT {
            let merge = whole(method, &inputs.weighted());
            let (alphas, _) = merge.run(&doubled.weighted()).unwrap();
            let (weights, _) = merge.run(&heavier.weighted()).unwrap();
            let error = apart(&alphas, &weights, &heavier.weighted());
            prop_assert!(error < 1e-6, "{}: {:e}", method, error);
        }
    }

    #[test]
    fn a_merge_does_not_see_the_format(inputs in inputs(2..4)) {
        let weighted = inputs.weighted();
        for format in FORMATS {
            let read = inputs.adapters.iter().map(|adapter| through(adapter, format));
            let again = Inputs { adapters: read.collect(), weights: inputs.weights.clone() };
            // Rounding of files can turn the sign that TIES elects, so that only what is continuous is held to it.
            for method in EXACT {
                let merge = whole(method, &weighted);
                let (expected, _) = merge.run(&weighted).unwrap();
                let (merged, _) = merge.run(&again.weighted()).unwrap();
                let error = apart(&merged, &expected, &weighted);
                prop_assert!(error < 2e-6, "{} {}: {:e}", method, format, error);
            }
        }
    }

    #[test]
    fn every_merge_is_the_same_bytes_again(inputs in inputs(2..3), seed in any::<u64>()) {
        let weighted = inputs.weighted();
        for method in Method::ALL {
            let merge = Merge { seed, ..whole(method, &weighted) };
            // Methods on factors want equal ranks, and some want weights that do not cancel.
            let Ok((merged, report)) = merge.run(&weighted) else { continue };
            let (again, same) = merge.run(&weighted).unwrap();
            prop_assert_eq!(&report, &same);
            for format in FORMATS {
                let bytes = merged.to_bytes(format, Dtype::F32).unwrap();
                prop_assert!(bytes == again.to_bytes(format, Dtype::F32).unwrap(), "{} {}", method, format);
            }
        }
    }

    #[test]
    fn a_truncated_sum_is_the_best_of_its_rank(inputs in inputs(2..4), rank in 1..6_usize) {
        let weighted = inputs.weighted();
        let (full, _) = Merge::new(Method::Sum).run(&weighted).unwrap();
        let (merged, report) = Merge::new(Method::Sum).with_rank(rank).run(&weighted).unwrap();
        let (resized, _) = full.resize(RankRule::Number(rank)).unwrap();
        // Two ways to the same best approximation.
        let error = apart(&merged, &resized, &weighted);
        let sums = dense_sum(&weighted);
        for line in &report.modules {
            let (sum, size) = &sums[&line.module];
            let module = &merged.modules[&line.module];
            prop_assert!(module.rank() <= rank);
            let distance = norm(&(module.delta_f64().unwrap() - sum));
            prop_assert!((distance - line.truncation_error * line.norm).abs() < 1e-6 * size);
            let other = norm(&(resized.modules[&line.module].delta_f64().unwrap() - sum));
            prop_assert!((distance - other).abs() < 1e-6 * size, "{} {} {:e}", distance, other, error);
        }
    }
}
