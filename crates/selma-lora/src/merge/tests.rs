use ndarray::Array2;

use super::*;
use crate::init;

pub(super) const LINEAR: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
pub(super) const CONV: &str = "unet.mid_block.resnets.0.conv1";
pub(super) const POINTWISE: &str = "unet.mid_block.attentions.0.proj_in";

/// A trained-looking module: random `A` and `B`.
pub(super) fn module(
    path: &str,
    shape: &[usize],
    rank: usize,
    alpha: f64,
    seed: u64,
) -> LoraModule {
    let mut module = init::gaussian(path, shape, rank, alpha, seed).unwrap();
    let b = init::gaussian_a(&format!("{path} B"), module.b.len(), 1, seed);
    let values = b.mapv(|x| x * module.b.len() as f32);
    module.b = values
        .into_dyn()
        .into_shape_with_order(module.b.raw_dim())
        .unwrap();
    module
}

pub(super) fn adapter(rank: usize, alpha: f64, seed: u64) -> Adapter {
    Adapter::new([
        (
            LINEAR.to_owned(),
            module(LINEAR, &[20, 12], rank, alpha, seed),
        ),
        (
            CONV.to_owned(),
            module(CONV, &[6, 5, 3, 3], rank, alpha, seed),
        ),
        (
            POINTWISE.to_owned(),
            module(POINTWISE, &[16, 16, 1, 1], rank, alpha, seed),
        ),
    ])
}

pub(super) fn weighted<'a>(adapters: &'a [Adapter], weights: &[f64]) -> Vec<Weighted<'a>> {
    adapters
        .iter()
        .zip(weights)
        .map(|(adapter, &weight)| Weighted { adapter, weight })
        .collect()
}

pub(super) fn delta(adapter: &Adapter, path: &str) -> Array2<f64> {
    adapter.modules[path].delta_f64().unwrap()
}

/// `sum_i w_i dW_i`, densely.
pub(super) fn dense_sum(inputs: &[Weighted<'_>], path: &str) -> Array2<f64> {
    inputs
        .iter()
        .filter(|input| input.adapter.modules.contains_key(path))
        .map(|input| delta(input.adapter, path) * input.weight)
        .reduce(|x, y| x + y)
        .unwrap()
}

fn norm(x: &Array2<f64>) -> f64 {
    x.mapv(|x| x * x).sum().sqrt()
}

pub(super) fn distance(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    norm(&(x - y)) / norm(y)
}

fn run(method: Method, inputs: &[Weighted<'_>]) -> Adapter {
    Merge::new(method).run(inputs).unwrap().0
}

#[test]
fn one_adapter_at_weight_one_is_itself() {
    let expert = adapter(4, 4.0, 1);
    for method in [Method::Sum, Method::Mean, Method::FactorMean] {
        let merged = run(method, &[Weighted::from(&expert)]);
        assert_eq!(merged.modules, expert.modules, "{method}");
    }
    let scaled = adapter(4, 3.0, 1);
    for method in [Method::Sum, Method::Mean, Method::Svd, Method::FactorMean] {
        let merged = run(method, &[Weighted::from(&scaled)]);
        for path in [LINEAR, CONV, POINTWISE] {
            assert!(distance(&delta(&merged, path), &delta(&scaled, path)) < 1e-6);
        }
    }
}

#[test]
fn sum_and_mean_are_exact_for_mixed_ranks_alphas_and_signs() {
    let adapters = [adapter(4, 8.0, 1), adapter(2, 1.0, 2), adapter(7, -7.0, 3)];
    let inputs = weighted(&adapters, &[0.7, -0.4, 1.3]);
    let (sum, report) = Merge::new(Method::Sum).run(&inputs).unwrap();
    let mean = run(Method::Mean, &inputs);
    for path in [LINEAR, CONV, POINTWISE] {
        let expected = dense_sum(&inputs, path);
        assert!(distance(&delta(&sum, path), &expected) < 1e-6);
        assert!(distance(&(delta(&mean, path) * 3.0), &expected) < 1e-6);
        assert_eq!(sum.modules[path].rank(), 13);
        assert_eq!(sum.modules[path].scale(), 1.0);
        let line = report.modules.iter().find(|m| m.module == path).unwrap();
        assert_eq!(line.ranks, [Some(4), Some(2), Some(7)]);
        // From four random vectors.
        assert!((line.norm / norm(&expected) - 1.0).abs() < 0.5);
        assert_eq!(line.truncation_error, 0.0);
        assert!(line.self_check < 1e-6);
    }
    assert_eq!(sum.modules[CONV].a.shape(), [13, 5, 3, 3]);
    assert_eq!(sum.modules[CONV].b.shape(), [6, 13, 1, 1]);
}

#[test]
fn the_order_of_adapters_does_not_matter() {
    let adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2), adapter(4, 4.0, 3)];
    let turned = [
        adapters[2].clone(),
        adapters[0].clone(),
        adapters[1].clone(),
    ];
    for method in [Method::Sum, Method::Mean, Method::Svd, Method::FactorMean] {
        let one = run(method, &weighted(&adapters, &[0.7, -0.4, 1.3]));
        let other = run(method, &weighted(&turned, &[1.3, 0.7, -0.4]));
        for path in [LINEAR, CONV, POINTWISE] {
            assert!(
                distance(&delta(&one, path), &delta(&other, path)) < 1e-5,
                "{method}"
            );
        }
    }
}

#[test]
fn doubling_alpha_is_doubling_the_weight() {
    let plain = [adapter(4, 4.0, 1), adapter(3, 2.0, 2)];
    let doubled = [adapter(4, 8.0, 1), adapter(3, 4.0, 2)];
    for method in [Method::Sum, Method::Mean, Method::Svd] {
        let by_alpha = run(method, &weighted(&doubled, &[0.5, -0.5]));
        let by_weight = run(method, &weighted(&plain, &[1.0, -1.0]));
        for path in [LINEAR, CONV, POINTWISE] {
            assert!(distance(&delta(&by_alpha, path), &delta(&by_weight, path)) < 1e-5);
        }
    }
}

#[test]
fn truncation_keeps_the_largest_part_and_reports_the_rest() {
    let adapters = [adapter(4, 8.0, 1), adapter(3, 1.0, 2)];
    let inputs = weighted(&adapters, &[0.7, -1.4]);
    let mean = run(Method::Mean, &inputs);
    let mut last = f64::INFINITY;
    for rank in [1, 3, 4, 6] {
        let (merged, report) = Merge::new(Method::Svd)
            .with_rank(rank)
            .run(&inputs)
            .unwrap();
        for line in &report.modules {
            let path = line.module.as_str();
            assert_eq!(merged.modules[path].rank(), rank);
            let lost = distance(&delta(&merged, path), &delta(&mean, path));
            assert!((lost - line.truncation_error).abs() < 1e-5, "{path} {rank}");
            assert!(line.self_check < 3.0 * lost + 1e-6);
        }
        assert!(report.truncation_error < last && report.truncation_error > 0.0);
        last = report.truncation_error;
    }
    // The default is the largest rank of the inputs, and a sum can be truncated as well.
    assert_eq!(run(Method::Svd, &inputs).modules[LINEAR].rank(), 4);
    let (sum, _) = Merge::new(Method::Sum).with_rank(2).run(&inputs).unwrap();
    let (svd, _) = Merge::new(Method::Svd).with_rank(2).run(&inputs).unwrap();
    assert!(distance(&delta(&sum, CONV), &(delta(&svd, CONV) * 2.0)) < 1e-5);
}

#[test]
fn enough_rank_loses_nothing() {
    // Ranks sum to 24, more than the 6 outputs of the convolution and the 12 inputs of the linear.
    let adapters = [adapter(8, 8.0, 1), adapter(8, 8.0, 2), adapter(8, 8.0, 3)];
    let inputs = weighted(&adapters, &[1.0, 1.0, 1.0]);
    let mean = run(Method::Mean, &inputs);
    for rank in [12, 16, 24, 1000] {
        let (svd, report) = Merge::new(Method::Svd)
            .with_rank(rank)
            .run(&inputs)
            .unwrap();
        assert_eq!(svd.modules[CONV].rank(), 6);
        assert_eq!(svd.modules[LINEAR].rank(), 12);
        for path in [LINEAR, CONV] {
            assert!(distance(&delta(&svd, path), &delta(&mean, path)) < 1e-5);
        }
        let exact = |m: &&ModuleReport| m.module != POINTWISE;
        assert!(
            report
                .modules
                .iter()
                .filter(exact)
                .all(|m| m.self_check < 1e-6)
        );
    }
}

#[test]
fn the_mean_of_factors_is_that_of_the_paper() {
    let experts = [adapter(4, 8.0, 1), adapter(4, 8.0, 2)];
    let merged = run(Method::FactorMean, &weighted(&experts, &[1.0, 1.0]));
    let [x, y] = [&experts[0].modules[CONV], &experts[1].modules[CONV]];
    let found = &merged.modules[CONV];
    assert_eq!(found.alpha, 8.0);
    let mean = |p: &ndarray::ArrayD<f32>, q: &ndarray::ArrayD<f32>| (p + q).mapv(|x| x / 2.0);
    for (found, expected) in [(&found.a, mean(&x.a, &y.a)), (&found.b, mean(&x.b, &y.b))] {
        assert!((found - &expected).iter().all(|d| d.abs() < 1e-6));
    }
    // It coincides with the mean of the updates when all experts share A.
    let mut shared = experts;
    let a = shared[0].modules[CONV].a.clone();
    shared[1].modules.get_mut(CONV).unwrap().a = a;
    let inputs = weighted(&shared, &[1.0, 1.0]);
    let factors = run(Method::FactorMean, &inputs);
    assert!(
        distance(
            &delta(&factors, CONV),
            &delta(&run(Method::Mean, &inputs), CONV)
        ) < 1e-6
    );
}

#[test]
fn the_mean_of_factors_folds_unequal_scales() {
    let adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2), adapter(4, -2.0, 3)];
    let baked: Vec<Adapter> = adapters
        .iter()
        .map(|adapter| {
            let modules = adapter.modules.iter();
            Adapter::new(modules.map(|(path, module)| (path.clone(), module.baked())))
        })
        .collect();
    let weights = [1.0, 0.5, 2.0];
    let (folded, report) = Merge::new(Method::FactorMean)
        .run(&weighted(&adapters, &weights))
        .unwrap();
    let expected = run(Method::FactorMean, &weighted(&baked, &weights));
    for path in [LINEAR, CONV] {
        assert!(distance(&delta(&folded, path), &delta(&expected, path)) < 1e-6);
    }
    assert!(report.self_check < 1e-6);
}

#[test]
fn a_module_that_an_adapter_lacks_counts_as_zero() {
    let mut adapters = [adapter(4, 4.0, 1), adapter(4, 4.0, 2)];
    adapters[0].modules.remove(CONV);
    adapters[1].modules.remove(LINEAR);
    let inputs = weighted(&adapters, &[1.0, 1.0]);
    for (method, share) in [
        (Method::Sum, 1.0),
        (Method::Mean, 0.5),
        (Method::FactorMean, 0.25),
    ] {
        let (merged, report) = Merge::new(method).run(&inputs).unwrap();
        assert!(
            distance(
                &delta(&merged, LINEAR),
                &(delta(&adapters[0], LINEAR) * share)
            ) < 1e-6
        );
        assert!(distance(&delta(&merged, CONV), &(delta(&adapters[1], CONV) * share)) < 1e-6);
        let line = report.modules.iter().find(|m| m.module == CONV).unwrap();
        assert_eq!(line.ranks, [None, Some(4)]);
    }
}

#[test]
fn a_pointwise_convolution_meets_a_linear_layer() {
    let convolution = adapter(4, 4.0, 1);
    let mut linear = convolution.clone();
    let flat = linear.modules.get_mut(POINTWISE).unwrap();
    flat.a = flat.a.clone().into_shape_with_order(vec![4, 16]).unwrap();
    flat.b = flat.b.clone().into_shape_with_order(vec![16, 4]).unwrap();
    for adapters in [
        [linear.clone(), convolution.clone()],
        [convolution.clone(), linear],
    ] {
        let merged = run(Method::Mean, &weighted(&adapters, &[1.0, 1.0]));
        assert_eq!(merged.modules[POINTWISE].weight_shape(), [16, 16, 1, 1]);
        assert!(distance(&delta(&merged, POINTWISE), &delta(&convolution, POINTWISE)) < 1e-6);
    }
}

#[test]
fn opposite_weights_cancel() {
    let expert = adapter(4, 4.0, 1);
    let inputs = [
        Weighted {
            adapter: &expert,
            weight: 1.0,
        },
        Weighted {
            adapter: &expert,
            weight: -1.0,
        },
    ];
    for method in [Method::Sum, Method::Svd, Method::FactorMean] {
        let (merged, report) = Merge::new(method).run(&inputs).unwrap();
        assert!(norm(&delta(&merged, CONV)) < 1e-6 * norm(&delta(&expert, CONV)));
        assert!(report.norm.is_finite() && report.truncation_error.is_finite());
    }
    let zero = Weighted {
        adapter: &expert,
        weight: 0.0,
    };
    let (merged, report) = Merge::new(Method::Svd).run(&[zero]).unwrap();
    assert!(merged.modules[LINEAR].is_zero());
    assert_eq!((report.norm, report.self_check), (0.0, 0.0));
}

#[test]
fn reruns_are_the_same_bytes_on_any_number_of_threads() {
    let adapters = [adapter(4, 8.0, 1), adapter(2, 1.0, 2)];
    let bytes = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            run(Method::Svd, &weighted(&adapters, &[0.7, -0.4]))
                .to_bytes(crate::Format::Diffusers, crate::Dtype::F16)
                .unwrap()
        })
    };
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn the_recipe_is_recorded() {
    let adapters = [adapter(4, 8.0, 1), adapter(2, 1.0, 2)];
    let (merged, report) = Merge::new(Method::Svd)
        .with_rank(3)
        .run(&weighted(&adapters, &[0.7, -0.4]))
        .unwrap();
    let recipe: serde_json::Value = serde_json::from_str(&merged.metadata["selma_merge"]).unwrap();
    assert_eq!(recipe["method"], "svd");
    assert_eq!(recipe["rank"], 3);
    assert_eq!(recipe["inputs"][1]["weight"], -0.4);
    assert_eq!(recipe["inputs"][1]["sha256"], adapters[1].sha256());
    assert_eq!(
        serde_json::to_value(&report).unwrap()["modules"][0]["rank"],
        3
    );
}

#[test]
fn impossible_merges_are_refused() {
    let expert = adapter(4, 4.0, 1);
    let one = Weighted::from(&expert);
    assert!(matches!(
        Merge::default().run(&[]),
        Err(LoraError::NoAdapters)
    ));
    assert!(matches!(
        Merge::default().with_rank(0).run(&[one]),
        Err(LoraError::ZeroRank)
    ));
    let bad = Weighted {
        weight: f64::NAN,
        ..one
    };
    assert!(matches!(
        Merge::default().run(&[one, bad]),
        Err(LoraError::BadWeight { index: 1, .. })
    ));

    let mut narrow = expert.clone();
    narrow
        .modules
        .insert(LINEAR.to_owned(), module(LINEAR, &[20, 11], 4, 4.0, 1));
    let error = Merge::default()
        .run(&[one, Weighted::from(&narrow)])
        .unwrap_err();
    assert!(error.to_string().contains(LINEAR) && error.to_string().contains("[20, 11]"));

    let other = adapter(3, 3.0, 1);
    let error = Merge::new(Method::FactorMean)
        .run(&[one, Weighted::from(&other)])
        .unwrap_err();
    assert!(matches!(error, LoraError::InModule { ref error, .. }
        if matches!(**error, LoraError::Ranks { expected: 4, found: 3 })));

    let huge = Weighted {
        weight: 1e90,
        ..one
    };
    let error = Merge::default().run(&[huge]).unwrap_err();
    assert!(error.to_string().contains("self-check"), "{error}");

    let mut broken = expert.clone();
    broken.modules.get_mut(CONV).unwrap().alpha = f64::INFINITY;
    assert!(Merge::default().run(&[Weighted::from(&broken)]).is_err());
    assert!("average".parse::<Method>().is_err());
}
