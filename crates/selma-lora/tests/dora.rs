//! DoRA of PEFT and LyCORIS, recorded by `tools/make_dora_fixtures.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use std::{collections::BTreeMap, fs};

use common::{fixture, recorded, relative};
use ndarray::{ArrayD, IxDyn};
use safetensors::SafeTensors;
use selma_lora::{Adapter, AdapterFile, AdapterReader, Format, Kind, LoraError, RankRule, Update};
use serde_json::{Value, json};

/// The record is of single precision, and LyCORIS adds 1e-16 to every length.
const EXACT: f64 = 3e-7;
const CASES: [(&str, &str); 2] = [
    ("peft", "peft_dora"),
    ("lycoris", "lycoris_dora.safetensors"),
];

/// The weights that the tools merged into, by module as it is called in the record.
fn weights(prefix: &str) -> BTreeMap<String, ArrayD<f32>> {
    let bytes = fs::read(fixture("dora_dw.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter_map(|(name, tensor)| {
            let module = name.strip_prefix(&format!("base_{prefix}."))?;
            let (numbers, _) = tensor.data().as_chunks::<4>();
            let values = numbers.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let weight = ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap();
            Some((module.to_owned(), weight))
        })
        .collect()
}

/// What the record calls a module.
fn name(tool: &str, path: &str) -> String {
    match tool {
        "peft" => path.to_owned(),
        _ => path.strip_prefix("unet.").unwrap().replace('.', "_"),
    }
}

fn load(file: &str) -> AdapterFile {
    AdapterFile::load(fixture(file), None).unwrap()
}

#[test]
fn doras_move_the_weights_as_the_tools_do() {
    for (tool, file) in CASES {
        let (recorded, weights) = (recorded("dora_dw.safetensors", tool), weights(tool));
        let file = load(file);
        assert_eq!(file.kinds(), BTreeMap::from([(Kind::Dora, recorded.len())]));
        for (path, update) in &file.updates {
            let name = name(tool, path);
            let delta = update.delta_on(&weights[&name].view()).unwrap();
            let error = relative(&delta, &recorded[&name]);
            let Update::Dora(dora) = update else {
                panic!("{path} is {}", update.kind())
            };
            let direction = dora.direction_kind();
            assert!(error < EXACT, "{tool} {path} ({direction}): {error:e}");
        }
    }
}

#[test]
fn doras_become_loras_where_the_weights_are_given() {
    for (tool, file) in CASES {
        let (recorded, weights) = (recorded("dora_dw.safetensors", tool), weights(tool));
        let base = |path: &str| Ok::<_, LoraError>(weights.get(&name(tool, path)).cloned());
        let (adapter, report) = load(file)
            .into_adapter_on(RankRule::Number(100), base)
            .unwrap();
        assert!(report.error < 1e-12);
        assert!(report.modules.iter().all(|line| line.kind == Kind::Dora));
        for (path, module) in &adapter.modules {
            let name = name(tool, path);
            assert_eq!(module.weight_shape(), weights[&name].shape(), "{path}");
            let error = relative(&module.delta_f64().unwrap(), &recorded[&name]);
            assert!(error < 1e-6, "{path}: {error:e}");
        }
        let (small, report) = load(file)
            .into_adapter_on(RankRule::Number(2), base)
            .unwrap();
        assert!(report.error > 0.1 && small.modules.values().all(|m| m.rank() == 2));
        let written = small
            .to_bytes(Format::Kohya, selma_lora::Dtype::F32)
            .unwrap();
        assert_eq!(
            Adapter::from_bytes(&written, None).unwrap().modules,
            small.modules
        );

        let none = |_: &str| Ok::<_, LoraError>(None);
        let error = load(file)
            .into_adapter_on(RankRule::Number(2), none)
            .unwrap_err();
        let first = load(file).updates.keys().next().unwrap().clone();
        assert!(error.to_string().contains(&first), "{error}");
        let failing = |_: &str| Err(LoraError::NoAdapters);
        let error = load(file)
            .into_adapter_on(RankRule::Number(2), failing)
            .unwrap_err();
        assert!(matches!(error, LoraError::NoAdapters));
        let other = |_: &str| Ok::<_, LoraError>(Some(ArrayD::zeros(IxDyn(&[3, 3]))));
        let error = load(file)
            .into_adapter_on(RankRule::Number(2), other)
            .unwrap_err();
        assert!(error.to_string().contains("[3, 3]"), "{error}");
    }
}

#[test]
fn diffusers_saves_the_same_dora() {
    let diffusers = load("named_dora.safetensors");
    assert_eq!(diffusers.source.format, Format::Diffusers);
    assert_eq!(diffusers.updates, load("peft_dora").updates);
    let error = Adapter::load(fixture("named_dora.safetensors")).unwrap_err();
    assert!(error.to_string().contains("DoRA"), "{error}");
}

#[test]
fn without_the_weights_doras_are_refused_by_name() {
    for (_, file) in CASES {
        let error = Adapter::load(fixture(file)).unwrap_err();
        assert!(matches!(&error, LoraError::InFile { error, .. }
            if matches!(**error, LoraError::OtherKind { kind: Kind::Dora, .. })));
        // From the header alone, before anything else is done with it.
        let error = AdapterReader::open(fixture(file)).unwrap_err().to_string();
        assert!(error.contains("belongs to a DoRA"), "{error}");
        let file = load(file);
        let first = file.updates.keys().next().unwrap().clone();
        let error = file.into_adapter(RankRule::Number(4), None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&first) && text.contains("depends on the weight"),
            "{text}"
        );
    }
}

#[test]
fn a_configuration_and_its_tensors_must_agree() {
    // Lengths that the configuration does not tell of are still lengths; the other way round they are
    // missing.
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        fs::copy(fixture("peft_dora").join(file), folder.path().join(file)).unwrap();
    }
    let edit = |use_dora: Value| {
        let path = folder.path().join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["use_dora"] = use_dora;
        fs::write(path, config.to_string()).unwrap();
    };
    edit(json!(false));
    let read = AdapterFile::load(folder.path(), None).unwrap();
    assert_eq!(read.updates, load("peft_dora").updates);

    edit(json!(true));
    let plain = fixture("peft_lora/unet/adapter_model.safetensors");
    fs::copy(plain, folder.path().join("adapter_model.safetensors")).unwrap();
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["r"] = json!(4);
    fs::write(path, config.to_string()).unwrap();
    let error = AdapterFile::load(folder.path(), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("lora_magnitude_vector") && error.contains("use_dora"),
        "{error}"
    );
    let error = Adapter::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("use_dora") && error.contains("DoRA"),
        "{error}"
    );
}
