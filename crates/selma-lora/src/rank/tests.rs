use ndarray::{ArrayD, IxDyn};

use super::*;
use crate::init;

/// `dW [6, 4]` with the singular values 8, 4, 2, 1 and the factors of rank 5.
fn known() -> LoraModule {
    let mut a = ArrayD::zeros(IxDyn(&[5, 4]));
    let mut b = ArrayD::zeros(IxDyn(&[6, 5]));
    for (i, value) in [8.0, 4.0, 2.0, 1.0].into_iter().enumerate() {
        a[[i, i]] = value;
        b[[i, i]] = 2.0;
    }
    LoraModule::new(a, b, 2.5).unwrap()
}

fn relative(module: &LoraModule, to: &Array2<f64>) -> f64 {
    let norm = |x: Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
    norm(module.delta_f64().unwrap() - to) / norm(to.clone())
}

#[test]
fn rules_choose_by_number_energy_and_size() {
    // Energies 64, 16, 4, 1 of 85.
    for (rule, rank, lost) in [
        (RankRule::Number(2), 2, 5.0),
        (RankRule::Number(4), 4, 0.0),
        (RankRule::Energy(0.5), 1, 21.0),
        (RankRule::Energy(0.94), 2, 5.0),
        (RankRule::Energy(0.95), 3, 1.0),
        (RankRule::Threshold(2.5), 2, 5.0),
        (RankRule::Threshold(100.0), 1, 21.0),
        (RankRule::Threshold(0.5), 4, 0.0),
        (RankRule::Ratio(0.24), 3, 1.0),
        (RankRule::Ratio(1.0), 1, 21.0),
    ] {
        let (module, cut) = known().resize(rule).unwrap();
        assert_eq!((module.rank(), cut.rank), (rank, rank), "{rule:?}");
        assert!((cut.norm - 85.0_f64.sqrt()).abs() < 1e-12);
        assert!(
            (cut.error - (lost / 85.0_f64).sqrt()).abs() < 1e-7,
            "{rule:?}"
        );
        let distance = relative(&module, &known().delta_f64().unwrap());
        assert!((distance - cut.error).abs() < 1e-6, "{rule:?}");
        assert_eq!(
            (module.alpha, module.weight_shape()),
            (rank as f64, vec![6, 4])
        );
    }
}

#[test]
fn a_rank_that_is_low_already_is_left_to_the_bit() {
    let module = init::gaussian("x", &[40, 30], 3, 1.5, 0).unwrap();
    let mut module = module;
    module.b = init::gaussian_a("b", 40, 3, 1).into_dyn();
    for rule in [
        RankRule::Number(3),
        RankRule::Number(9),
        RankRule::Energy(1.0),
    ] {
        let (same, cut) = module.resize(rule).unwrap();
        assert_eq!(same, module);
        assert_eq!((cut.rank, cut.error), (3, 0.0));
    }
}

#[test]
fn an_update_of_zero_keeps_a_rank_of_one() {
    let zero = init::gaussian("x", &[40, 30], 3, 1.5, 0).unwrap();
    for rule in [
        RankRule::Number(1),
        RankRule::Energy(0.5),
        RankRule::Ratio(0.5),
    ] {
        let (module, cut) = zero.resize(rule).unwrap();
        assert!(module.is_zero() || module.delta().unwrap().iter().all(|&x| x == 0.0));
        assert_eq!((cut.norm, cut.error), (0.0, 0.0));
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    for rule in [
        RankRule::Energy(0.0),
        RankRule::Energy(1.5),
        RankRule::Energy(f64::NAN),
        RankRule::Threshold(-1.0),
        RankRule::Threshold(f64::INFINITY),
        RankRule::Ratio(1.1),
    ] {
        let error = known().resize(rule).unwrap_err();
        assert!(matches!(error, LoraError::BadRankRule { .. }), "{error}");
    }
    assert!(matches!(
        known().resize(RankRule::Number(0)),
        Err(LoraError::ZeroRank)
    ));
    let rule = RankRule::Number(1);
    let delta = Array2::zeros((4, 6));
    for weight in [&[4, 5][..], &[4], &[], &[6, 4]] {
        let error = LoraModule::from_delta(&delta, weight, rule).unwrap_err();
        assert!(matches!(error, LoraError::DeltaShape { .. }));
    }
    let nan = Array2::from_elem((4, 6), f64::NAN);
    assert!(matches!(
        LoraModule::from_delta(&nan, &[4, 6], rule),
        Err(LoraError::NoConvergence)
    ));
}

#[test]
fn an_adapter_is_resized_module_by_module() {
    let mut adapter = Adapter::new([
        ("unet.a".to_owned(), known()),
        ("unet.b".to_owned(), known()),
    ]);
    adapter.modules.get_mut("unet.b").unwrap().alpha *= 2.0;
    adapter
        .metadata
        .insert("note".to_owned(), "kept".to_owned());
    let (small, report) = adapter.resize(RankRule::Threshold(3.0)).unwrap();
    let ranks: Vec<usize> = small.modules.values().map(LoraModule::rank).collect();
    assert_eq!(ranks, [2, 3]);
    assert_eq!(small.metadata["note"], "kept");
    assert!(small.metadata["selma_resize"].contains(&adapter.sha256()));
    let lost: f64 = 4.0 + 1.0 + 4.0 * 1.0;
    assert!((report.error - (lost / (85.0 * 5.0)).sqrt()).abs() < 1e-7);
    assert_eq!(report.modules[1].before, 5);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["modules"][0]["rank"], &json["rule"]["threshold"]),
        (&json!(2), &json!(3.0))
    );

    adapter.modules.get_mut("unet.b").unwrap().alpha = f64::NAN;
    let error = adapter.resize(RankRule::Number(1)).unwrap_err();
    assert!(error.to_string().contains("unet.b"));
}

#[test]
fn rules_are_read_back_from_text() {
    for rule in [
        RankRule::Number(16),
        RankRule::Energy(0.95),
        RankRule::Threshold(0.01),
        RankRule::Ratio(0.02),
    ] {
        assert_eq!(rule.to_string().parse::<RankRule>().unwrap(), rule);
    }
    for text in ["", "-1", "1.5", "energy", "energy:", "energy:x", "size:1"] {
        let error = text.parse::<RankRule>().unwrap_err();
        assert!(matches!(error, LoraError::UnknownName { .. }), "{text}");
    }
    assert!(matches!("0".parse::<RankRule>(), Err(LoraError::ZeroRank)));
    let nan = "energy:nan".parse::<RankRule>();
    assert!(matches!(nan, Err(LoraError::BadRankRule { .. })));
}

#[test]
fn a_number_is_as_good_without_the_values_that_are_dropped() {
    // Large enough for the route that computes only what is kept, tall and wide.
    for shape in [[90, 70], [70, 90]] {
        let mut module = init::gaussian("unet.x", &shape, 68, 68.0, 1).unwrap();
        let b = init::gaussian_a("b", module.b.len(), 1, 2);
        module.b = b
            .into_dyn()
            .into_shape_with_order(module.b.raw_dim())
            .unwrap();
        let delta = module.delta_f64().unwrap();
        let number = RankRule::Number(7);
        let (_, all) = LoraModule::from_delta(&delta, &shape, RankRule::Threshold(0.0)).unwrap();
        assert_eq!(all.rank, 70);
        for (small, cut) in [
            LoraModule::from_delta(&delta, &shape, number).unwrap(),
            module.resize(number).unwrap(),
        ] {
            assert_eq!((small.rank(), cut.rank), (7, 7));
            assert!((cut.norm / all.norm - 1.0).abs() < 1e-9);
            assert!((relative(&small, &delta) - cut.error).abs() < 1e-6);
        }
    }
}
