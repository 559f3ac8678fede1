//! Files and merges of PEFT and diffusers, recorded by `tools/make_lora_fixtures.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use std::{collections::BTreeMap, path::PathBuf};

use safetensors::SafeTensors;
use selma_lora::{Adapter, Format, Merge, Method, Weighted};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn experts() -> [Adapter; 3] {
    ["a", "b", "c"]
        .map(|name| Adapter::load(fixture(&format!("expert_{name}.safetensors"))).unwrap())
}

/// The dense updates that PEFT computed in double precision, by module.
fn recorded(prefix: &str) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(fixture("peft_dw.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter_map(|(name, tensor)| {
            let (case, module) = name.split_once('.')?;
            let (numbers, _) = tensor.data().as_chunks::<4>();
            let values = numbers.iter().map(|&b| f64::from(f32::from_le_bytes(b)));
            (case == prefix).then(|| (module.to_owned(), values.collect()))
        })
        .collect()
}

/// The largest relative error of a module's update.
fn worst(adapter: &Adapter, expected: &BTreeMap<String, Vec<f64>>) -> f64 {
    assert!(!expected.is_empty() && adapter.modules.keys().eq(expected.keys()));
    expected
        .iter()
        .map(|(module, expected)| {
            let found = adapter.modules[module].delta_f64().unwrap();
            assert_eq!(found.len(), expected.len());
            let squares: f64 = found
                .iter()
                .zip(expected)
                .map(|(x, y)| (x - y).powi(2))
                .sum();
            (squares / expected.iter().map(|y| y * y).sum::<f64>()).sqrt()
        })
        .fold(0.0, f64::max)
}

#[test]
fn metadata_of_diffusers_gives_ranks_and_alphas() {
    for (name, expert) in ["a", "b", "c"].iter().zip(experts()) {
        assert_eq!(expert.source.as_ref().unwrap().format, Format::Diffusers);
        // Single precision of the record itself.
        assert!(worst(&expert, &recorded(name)) < 1e-7);
    }
    let conv = "unet.down_blocks.1.resnets.0.conv1";
    let alphas = experts().map(|expert| expert.modules[conv].alpha);
    assert_eq!(alphas, [8.0, 2.0, 6.0]);
}

#[test]
fn merges_are_those_of_peft() {
    let experts = experts();
    let inputs: Vec<Weighted<'_>> = experts
        .iter()
        .zip([0.7, -0.4, 1.3])
        .map(|(adapter, weight)| Weighted { adapter, weight })
        .collect();
    let (sum, report) = Merge::new(Method::Sum).run(&inputs).unwrap();
    let error = worst(&sum, &recorded("cat"));
    assert!(error < 1e-6, "{error}");
    assert!(report.self_check < 1e-6);

    let (truncated, report) = Merge::new(Method::Sum).with_rank(3).run(&inputs).unwrap();
    let error = worst(&truncated, &recorded("svd"));
    assert!(error < 1e-5, "{error}");
    assert!(report.truncation_error > 0.01);
}

#[test]
fn one_adapter_has_one_content_under_every_name() {
    let load = |name: &str| Adapter::load(fixture(name)).unwrap();
    let diffusers = load("named_diffusers.safetensors");
    assert_eq!(diffusers.modules.len(), 5);
    let script = load("named_script.safetensors");
    assert_eq!(
        script.source.as_ref().unwrap().format,
        Format::DiffusersScript
    );
    assert_eq!(script.modules, diffusers.modules);

    // Half precision, alpha half of the rank, `lora_te1_` without the `text_model` level.
    let kohya = load("named_kohya.safetensors");
    assert_eq!(kohya.source.as_ref().unwrap().format, Format::Kohya);
    assert!(kohya.modules.keys().eq(diffusers.modules.keys()));
    for (name, module) in &diffusers.modules {
        let found = &kohya.modules[name];
        assert_eq!(found.alpha, module.alpha / 2.0);
        assert!((&found.a - &module.a).iter().all(|d| d.abs() < 1e-3));
        assert!((&found.b - &module.b).iter().all(|d| d.abs() < 1e-3));
    }
    let summary = kohya.summary().unwrap();
    assert_eq!(summary.components["text_encoder"], 3);
    assert_eq!(summary.ranks, BTreeMap::from([(2, 2), (3, 3)]));
    assert_eq!(summary.alphas(), [1.0, 1.5]);
    assert_eq!(summary.scales, (0.5, 0.5));
}
