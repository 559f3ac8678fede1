//! Files, merges and names of kohya's sd-scripts, and the old names of diffusers, recorded by
//! `tools/make_kohya_fixtures.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{fixture, recorded, relative};
use ndarray::{Array2, ArrayD, IxDyn};
use selma_lora::{Adapter, Dtype, Format, LoraModule, Merge, Method, Model, Weighted};

fn load(name: &str) -> Adapter {
    Adapter::load(fixture(&format!("{name}.safetensors"))).unwrap()
}

fn worst(adapter: &Adapter, expected: &BTreeMap<String, Array2<f64>>) -> f64 {
    assert!(adapter.modules.keys().eq(expected.keys()));
    adapter
        .modules
        .iter()
        .map(|(path, module)| relative(&module.delta_f64().unwrap(), &expected[path]))
        .fold(0.0, f64::max)
}

#[test]
fn files_of_sd_scripts_do_what_sd_scripts_does() {
    for (name, dtype) in [
        ("kohya_a", Dtype::F16),
        ("kohya_b", Dtype::BF16),
        // One alpha is 0 and one is missing: both stand for the rank.
        ("kohya_alpha", Dtype::F16),
    ] {
        let adapter = load(name);
        let source = adapter.source.as_ref().unwrap();
        assert_eq!(source.format, Format::Kohya);
        assert_eq!(source.dtypes, BTreeSet::from([dtype]));
        // sd-scripts multiplies in single precision.
        let error = worst(&adapter, &recorded("kohya_dw.safetensors", name));
        assert!(error < 3e-7, "{name}: {error:e}");
    }
}

#[test]
fn kohya_merges_as_sd_scripts_does() {
    let adapters = [load("kohya_a"), load("kohya_b")];
    let inputs: Vec<Weighted<'_>> = adapters
        .iter()
        .zip([0.7, -0.4])
        .map(|(adapter, weight)| Weighted { adapter, weight })
        .collect();
    let (merged, report) = Merge::new(Method::Kohya).run(&inputs).unwrap();
    // sd-scripts rounds the merged factors to single precision.
    let error = worst(&merged, &recorded("kohya_dw.safetensors", "merged"));
    assert!(error < 1e-6, "{error:e}");
    assert!(report.self_check < 1e-6);
    // Which is not the sum that it was asked for. The sum of half precision files of two kinds is that of
    // what sd-scripts does with each.
    let (sum, _) = Merge::new(Method::Sum).run(&inputs).unwrap();
    assert!(worst(&sum, &recorded("kohya_dw.safetensors", "merged")) > 0.3);
    let second = recorded("kohya_dw.safetensors", "kohya_b");
    let mut expected = recorded("kohya_dw.safetensors", "kohya_a");
    for (path, delta) in &mut expected {
        *delta = &*delta * 0.7 - &second[path] * 0.4;
    }
    let error = worst(&sum, &expected);
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn old_attention_processors_do_what_diffusers_says() {
    let expected = recorded("kohya_dw.safetensors", "attention");
    let named = load("named_attention");
    assert_eq!(
        named.source.as_ref().unwrap().format,
        Format::DiffusersScript
    );
    let error = worst(&named, &expected);
    assert!(error < 3e-7, "{error:e}");
    // Without the component before the names there are only modules of the UNet.
    let mut plain = named.modules;
    plain.retain(|path, _| path.starts_with("unet."));
    assert_eq!(load("named_attention_plain").modules, plain);
    assert_eq!(plain.len(), 8);
}

/// The lines of `kohya_names.txt` with `{0-9}` written out: a name of kohya, and its module.
fn names() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(fixture("kohya_names.txt")).unwrap();
    let numbered = |line: &str| -> Vec<String> {
        let Some((_, rest)) = line.split_once("{0-") else {
            return vec![line.to_owned()];
        };
        let (last, _) = rest.split_once('}').unwrap();
        let range = format!("{{0-{last}}}");
        let numbers = 0..=last.parse::<usize>().unwrap();
        numbers
            .map(|n| line.replace(&range, &n.to_string()))
            .collect()
    };
    text.lines()
        .flat_map(numbered)
        .map(|line| {
            let (name, path) = line.split_once(' ').unwrap();
            (name.to_owned(), path.to_owned())
        })
        .collect()
}

#[test]
fn every_name_that_sd_scripts_gives_sdxl_is_the_module_that_diffusers_finds() {
    let names = names();
    // All attention and, with `conv_dim`, all residual blocks; two text encoders.
    assert_eq!(names.len(), 1052);
    let originals = names
        .iter()
        .filter(|(name, _)| name.contains("put_blocks_"));
    assert!(originals.count() > 600);

    let one = |shape: &[usize]| ArrayD::from_elem(IxDyn(shape), 1.0_f32);
    let module = LoraModule::new(one(&[1, 1]), one(&[1, 1]), 1.0).unwrap();
    let table = Model::Sdxl.names().unwrap();
    let layers: BTreeSet<&String> = Model::Sdxl.modules().iter().map(|(path, _)| path).collect();
    assert!(names.iter().all(|(_, path)| layers.contains(path)));

    // The names in one file, each with a rank-1 update; names of the original layout are only read.
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, _) in &names {
        for part in ["lora_down", "lora_up"] {
            let start = data.len();
            data.extend(1.0_f32.to_le_bytes());
            let entry = serde_json::json!({"dtype": "F32", "shape": [1, 1], "data_offsets": [start, start + 4]});
            header.insert(format!("{name}.{part}.weight"), entry);
        }
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let expected: BTreeMap<String, LoraModule> = names
        .into_iter()
        .map(|(_, path)| (path, module.clone()))
        .collect();
    // By the grammar, and by the table.
    for known in [None, Some(&table)] {
        let adapter = Adapter::from_bytes(&bytes, known).unwrap();
        assert!(adapter.modules == expected);
    }
}
