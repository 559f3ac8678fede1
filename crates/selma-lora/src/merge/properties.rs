//! What holds for every method, or for all but those named.

use std::sync::Arc;

use super::tests::{
    CONV, LINEAR, POINTWISE, adapter, delta, dense_sum, distance, module, weighted,
};
use super::*;

const PATHS: [&str; 3] = [LINEAR, CONV, POINTWISE];

/// A recipe with every option that the method needs; `density` where it drops entries.
fn recipe(method: Method, density: f64) -> Merge {
    let plain = Merge::new(method);
    let dense = Merge {
        density: Some(density),
        ..plain.clone()
    };
    let weights = [1.0, 1.0];
    let mut merge = if dense.validate(weights.into_iter()).is_ok() {
        dense
    } else {
        plain
    };
    if method == Method::Ssr {
        merge.calibration = Some(Arc::new(calibration()));
    }
    // Full rank, so that nothing is truncated; LEGO's rank is its number of clusters.
    if merge.rank.is_none() && method != Method::Lego {
        merge.rank = Some(100);
    }
    merge
}

/// Statistics of two adapters of rank 4 that see inputs of their own.
fn calibration() -> Calibration {
    let statistics = |path: &str| {
        let mut statistics = Statistics::new(&[4, 4]);
        for adapter in 0..2 {
            let z = crate::init::gaussian_a(path, 20, 8, adapter);
            statistics.add(adapter as usize, &z.view()).unwrap();
        }
        statistics
    };
    let modules = PATHS.map(|path| (path.to_owned(), statistics(path)));
    modules.into_iter().collect()
}

/// Methods that draw: what they give depends on the positions of the adapters.
fn draws(method: Method) -> bool {
    let name = method.name();
    name.contains("dare") || name.contains("della") || method == Method::Lego
}

fn close(x: &Adapter, y: &Adapter, tolerance: f64, what: &str) {
    for path in PATHS {
        let error = distance(&delta(x, path), &delta(y, path));
        assert!(error < tolerance, "{what} {path}: {error:e}");
    }
}

#[test]
fn one_adapter_is_itself() {
    let expert = adapter(4, 3.0, 1);
    let one = [Weighted::from(&expert)];
    for method in Method::ALL {
        // Two adapters are needed; all singular values become equal.
        if matches!(
            method,
            Method::MkSlerp | Method::MkNuslerp | Method::CoreIso
        ) {
            continue;
        }
        let merge = Merge {
            // RobustMerge doubles by default.
            lambda: Some(1.0),
            ..recipe(method, 1.0)
        };
        let (merged, report) = merge.run(&one).unwrap();
        // RobustMerge's guard against division by zero is 1e-6.
        close(&merged, &expert, 5e-6, method.name());
        assert!(report.self_check < 1e-6, "{method}");
    }
}

#[test]
fn the_order_of_adapters_does_not_matter() {
    let adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2), adapter(4, 4.0, 3)];
    let [x, y, z] = adapters.each_ref();
    let turned = [z.clone(), x.clone(), y.clone()];
    for method in Method::ALL {
        let two = matches!(method, Method::MkSlerp | Method::MkNuslerp);
        // The statistics of SSR have an order.
        if two || draws(method) || method == Method::Ssr {
            continue;
        }
        let merge = recipe(method, 0.6);
        let (one, _) = merge.run(&weighted(&adapters, &[0.7, -0.4, 1.3])).unwrap();
        let (other, _) = merge.run(&weighted(&turned, &[1.3, 0.7, -0.4])).unwrap();
        close(&one, &other, 1e-5, method.name());
    }
}

#[test]
fn doubling_alpha_is_doubling_the_weight() {
    let plain = [adapter(4, 4.0, 1), adapter(4, 2.0, 2)];
    let doubled = [adapter(4, 8.0, 1), adapter(4, 4.0, 2)];
    for method in Method::ALL {
        // Divided by the weights, interpolated by them, or (the weight twice) squared by them.
        let by_weight = [
            Method::MkTies,
            Method::MkDella,
            Method::MkSlerp,
            Method::MkNuslerp,
            Method::FactorMean,
            Method::Kohya,
        ];
        if by_weight.contains(&method) {
            continue;
        }
        let merge = recipe(method, 0.6);
        let (alphas, _) = merge.run(&weighted(&doubled, &[0.5, -0.5])).unwrap();
        let (weights, _) = merge.run(&weighted(&plain, &[1.0, -1.0])).unwrap();
        close(&alphas, &weights, 1e-5, method.name());
    }
}

#[test]
fn a_merge_is_several_branches_at_once() {
    let adapters = [adapter(4, 8.0, 1), adapter(2, 1.0, 2), adapter(7, -7.0, 3)];
    let inputs = weighted(&adapters, &[0.7, -0.4, 1.3]);
    for method in [
        Method::Sum,
        Method::PeftLinearSvd,
        Method::MkTaskArithmetic,
        Method::KnotsSum,
        Method::CoreSum,
    ] {
        let merge = Merge {
            lambda: Some(-0.5),
            ..recipe(method, 1.0)
        };
        let (merged, report) = merge.run(&inputs).unwrap();
        for path in PATHS {
            let expected = dense_sum(&inputs, path) * -0.5;
            let error = distance(&delta(&merged, path), &expected);
            assert!(error < 1e-6, "{method} {path}: {error:e}");
        }
        assert!(report.self_check < 1e-6 && report.truncation_error < 1e-12);
    }
}

#[test]
fn the_same_adapter_twice_is_itself_where_nothing_adds_up() {
    // TSV-M keeps half of the six components of the convolution for each.
    let expert = adapter(3, 8.0, 1);
    let twice = [expert.clone(), expert.clone()];
    for (method, factor) in [
        (Method::Tsv, 1.0),
        (Method::CoreTsv, 1.0),
        (Method::CoreTies, 1.0),
        (Method::KnotsTies, 1.0),
        (Method::MkTies, 1.0),
        (Method::MkSlerp, 1.0),
        (Method::MkNuslerp, 1.0),
        (Method::MkKarcher, 1.0),
        (Method::MkSce, 1.0),
        (Method::MkModelStock, 1.0),
        (Method::PeftTiesSvd, 1.0),
        (Method::CoreSum, 2.0),
        (Method::KnotsSum, 2.0),
    ] {
        let merge = Merge {
            lambda: Some(1.0 / factor),
            ..recipe(method, 1.0)
        };
        let (merged, _) = merge.run(&weighted(&twice, &[1.0, 1.0])).unwrap();
        close(&merged, &expert, 1e-5, method.name());
    }
}

#[test]
fn reruns_are_the_same_bytes_on_any_number_of_threads() {
    let adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2)];
    let inputs = weighted(&adapters, &[0.7, -0.4]);
    for method in Method::ALL {
        let merge = recipe(method, 0.5);
        let bytes = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let (merged, _) = pool
                .build()
                .unwrap()
                .install(|| merge.run(&inputs).unwrap());
            merged
                .to_bytes(crate::Format::Kohya, crate::Dtype::F32)
                .unwrap()
        };
        assert!(bytes(1) == bytes(3), "{method}");
        if draws(method) && method != Method::Lego {
            let other = Merge {
                seed: 1,
                ..merge.clone()
            };
            let (seeded, _) = other.run(&inputs).unwrap();
            let (plain, _) = merge.run(&inputs).unwrap();
            assert_ne!(seeded.modules, plain.modules, "{method}");
        }
    }
}

#[test]
fn modules_can_be_merged_one_by_one() {
    let mut adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2)];
    adapters[1].modules.remove(CONV);
    let inputs = weighted(&adapters, &[0.7, -0.4]);
    for method in [Method::Mean, Method::PeftDareTies, Method::CoreTies] {
        let merge = recipe(method, 0.5);
        let (merged, report) = merge.run(&inputs).unwrap();
        let streamed: Vec<_> = merge
            .modules(&inputs)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(streamed.len(), 3);
        for (line, (module, alone)) in report.modules.iter().zip(streamed) {
            assert_eq!((&merged.modules[&line.module], line), (&module, &alone));
            let terms: Vec<Option<Term<'_>>> = inputs
                .iter()
                .map(|input| {
                    let module = input.adapter.modules.get(&line.module)?;
                    Some(Term {
                        module,
                        weight: input.weight,
                    })
                })
                .collect();
            assert_eq!(merge.module(&line.module, &terms).unwrap(), (module, alone));
        }
    }
    let none = Merge::new(Method::Sum).module("unet.x", &[None]);
    assert!(matches!(none, Err(LoraError::NoAdapters)));
}

#[test]
fn what_only_one_adapter_has_is_passed_on_or_counts_as_zero() {
    let mut adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2)];
    adapters[0].modules.remove(CONV);
    let inputs = weighted(&adapters, &[0.5, 2.0]);
    let alone = delta(&adapters[1], CONV);
    for (method, factor) in [
        (Method::MkSlerp, 1.0),
        (Method::MkNuslerp, 1.0),
        (Method::MkModelStock, 2.0),
        (Method::MkTaskArithmetic, 2.0),
        (Method::MkTies, 1.0),
        (Method::PeftTiesSvd, 2.0),
        (Method::CoreTies, 2.0),
        (Method::Ssr, 2.0),
    ] {
        let (merged, report) = recipe(method, 1.0).run(&inputs).unwrap();
        let error = distance(&delta(&merged, CONV), &(&alone * factor));
        assert!(error < 1e-6, "{method}: {error:e}");
        let line = report.modules.iter().find(|m| m.module == CONV).unwrap();
        assert_eq!(line.ranks, [None, Some(4)]);
    }
    // Divided by all weights, as mergekit's average of the models is.
    let mean = Merge {
        normalize: Some(true),
        ..recipe(Method::MkTaskArithmetic, 1.0)
    };
    let (merged, _) = mean.run(&inputs).unwrap();
    assert!(distance(&delta(&merged, CONV), &(&alone * (2.0 / 2.5))) < 1e-6);
}

#[test]
fn rules_change_the_weights_of_some_modules() {
    let adapters = [adapter(4, 8.0, 1), adapter(4, 1.0, 2)];
    let inputs = weighted(&adapters, &[1.0, 0.5]);
    let rule = |module: &str, adapter, weight| ModuleWeight {
        module: module.to_owned(),
        adapter,
        weight,
    };
    let merge = Merge {
        weights_by_module: vec![
            rule(r"resnets\.\d+\.", Some(1), -2.0),
            rule("^unet", Some(1), 3.0),
            rule("proj_in$", None, 0.0),
        ],
        ..Merge::new(Method::Sum)
    };
    let (merged, _) = merge.run(&inputs).unwrap();
    for (path, weights) in [
        (CONV, [1.0, -1.0]),
        (LINEAR, [1.0, 1.5]),
        (POINTWISE, [0.0, 1.5]),
    ] {
        let expected = dense_sum(&weighted(&adapters, &weights), path);
        assert!(distance(&delta(&merged, path), &expected) < 1e-6, "{path}");
    }
    assert!(merged.metadata["selma_merge"].contains("resnets"));
    for (bad, text) in [
        (rule("[", None, 1.0), "regular expressions"),
        (rule("nowhere", None, 1.0), "nowhere"),
        (rule("unet", Some(2), 1.0), "below 2"),
        (rule("unet", None, f64::NAN), "finite"),
    ] {
        let merge = Merge {
            weights_by_module: vec![bad],
            ..Merge::new(Method::Sum)
        };
        let error = merge.run(&inputs).unwrap_err().to_string();
        assert!(
            error.contains("weights_by_module") && error.contains(text),
            "{error}"
        );
    }
}

#[test]
fn unequal_ranks_and_shapes_are_refused_by_methods_on_factors() {
    let adapters = [adapter(4, 8.0, 1), adapter(3, 1.0, 2)];
    for method in [
        Method::PeftLinear,
        Method::PeftTies,
        Method::Kohya,
        Method::Robust,
    ] {
        let error = recipe(method, 0.5).run(&weighted(&adapters, &[1.0, 1.0]));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rank 4 and 3"), "{method}: {error}");
    }
    let mut zero = adapter(4, 8.0, 1);
    zero.modules.get_mut(CONV).unwrap().alpha = 0.0;
    let kohya = [zero, adapter(4, 8.0, 2)];
    let error = Merge::new(Method::Kohya).run(&weighted(&kohya, &[1.0, 1.0]));
    assert!(error.unwrap_err().to_string().contains("alpha"));
    // LEGO takes any ranks, and clusters of all units are the sum.
    let lego = Merge::new(Method::Lego).with_rank(7);
    let (merged, _) = lego.run(&weighted(&adapters, &[1.0, 1.0])).unwrap();
    let inputs = weighted(&adapters, &[1.0, 1.0]);
    let expected = dense_sum(&inputs, LINEAR) * (4.0_f64 / 7.0).sqrt();
    assert!(distance(&delta(&merged, LINEAR), &expected) < 1e-6);
}

#[test]
fn infinite_values_do_not_pass() {
    let mut broken = adapter(4, 8.0, 1);
    broken.modules.get_mut(LINEAR).unwrap().a[[0, 0]] = f32::NAN;
    let adapters = [broken, adapter(4, 8.0, 2)];
    for method in Method::ALL {
        let merge = recipe(method, 0.5);
        let error = merge.run(&weighted(&adapters, &[1.0, 1.0])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(LINEAR) && text.contains("not finite"),
            "{text}"
        );
    }
}

#[test]
fn large_ranks_are_merged_too() {
    // More ranks than the module has inputs: bases are as wide as the weight.
    let make = |seed| {
        Adapter::new(PATHS.map(|path| {
            let shape: &[usize] = match path {
                LINEAR => &[9, 20],
                CONV => &[6, 5, 3, 3],
                _ => &[16, 8, 1, 1],
            };
            (path.to_owned(), module(path, shape, 8, 8.0, seed))
        }))
    };
    let adapters = [make(1), make(2), make(3)];
    let inputs = weighted(&adapters, &[1.0, 0.5, -1.0]);
    for method in [Method::KnotsSum, Method::CoreSum] {
        let (merged, _) = Merge::new(method).run(&inputs).unwrap();
        for path in PATHS {
            let error = distance(&delta(&merged, path), &dense_sum(&inputs, path));
            assert!(error < 1e-6, "{method} {path}");
        }
        let weight = |path: &str| merged.modules[path].rank();
        assert_eq!(
            (weight(CONV), weight(POINTWISE)),
            (6, if method == Method::CoreSum { 8 } else { 16 })
        );
    }
    for method in [
        Method::CoreTies,
        Method::KnotsDare,
        Method::CoreTsv,
        Method::CoreIso,
    ] {
        let (_, report) = recipe(method, 0.5).run(&inputs).unwrap();
        assert!(report.self_check < 1e-6, "{method}");
    }
}
