//! Damaged and hostile files: an error or a sound adapter, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use common::fixture;
use ndarray::{ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_lora::{
    Adapter, AdapterFile, AdapterReader, LoraError, LoraModule, Merge, Method, RankRule, Update,
    Weighted, init,
    merge::{Calibration, Masks, Statistics, Term},
};

const FILES: [&str; 9] = [
    "lycoris_dora.safetensors",
    "peft_dora/adapter_model.safetensors",
    "lycoris_kinds.safetensors",
    "lycoris_locon.safetensors",
    "named_kohya.safetensors",
    "named_script.safetensors",
    "expert_a.safetensors",
    "peft_lora/unet/adapter_model.safetensors",
    "peft_lokr/adapter_model.safetensors",
];

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// A file with this header and so many bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; data]].concat()
}

/// Read module by module it is what it is as a whole, or not read at all.
fn by_module(bytes: &[u8], whole: Option<&Adapter>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let Ok(reader) = AdapterReader::open(file.path()) else {
        assert!(whole.is_none());
        return;
    };
    let modules = reader.paths().map(|path| {
        let module = reader.module(path).ok()?;
        Some((path.clone(), module.unwrap()))
    });
    let modules: Option<BTreeMap<String, LoraModule>> = modules.collect();
    assert_eq!(modules.as_ref(), whole.map(|adapter| &adapter.modules));
}

/// Everything that can be asked of a file, if it can be read.
fn try_all(bytes: &[u8]) -> bool {
    let lora = Adapter::from_bytes(bytes, None);
    if let Ok(adapter) = &lora {
        assert!(adapter.modules.values().all(|module| module.is_finite()));
        adapter.summary().unwrap();
    }
    match AdapterFile::from_bytes(bytes, None) {
        Ok(file) => {
            for update in file.updates.values() {
                let shape = update.weight_shape();
                assert!(update.is_finite() && shape.iter().all(|&n| n > 0));
                let delta = match update {
                    Update::Dora(_) => {
                        let base = ArrayD::from_elem(IxDyn(&shape), 0.5);
                        match update.delta_on(&base.view()) {
                            Ok(delta) => delta,
                            // Lengths of inputs, and a kernel that is not known.
                            Err(error) => {
                                assert!(matches!(error, LoraError::PartShapes { .. }), "{error}");
                                continue;
                            }
                        }
                    }
                    _ => update.delta().unwrap(),
                };
                assert_eq!(delta.nrows(), shape[0]);
                assert_eq!(delta.ncols(), shape[1..].iter().product::<usize>());
            }
            true
        }
        Err(error) => {
            assert!(lora.is_err() && !error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn no_truncation_is_read() {
    for name in FILES {
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert!(try_all(&bytes), "{name}");
        let header = 8 + header_length(&bytes);
        for length in (0..header).chain((header..bytes.len()).step_by(7)) {
            assert!(!try_all(&bytes[..length]), "{name} at {length}");
        }
    }
}

#[test]
fn no_change_of_bytes_is_a_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for name in FILES {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let header = 8 + header_length(&bytes);
        let mut read = 0;
        for round in 0..600 {
            let mut changed = bytes.clone();
            let end = if round % 4 == 0 { bytes.len() } else { header };
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..end);
                changed[at] = match round % 3 {
                    0 => random.random(),
                    // Digits for digits: other shapes and offsets, in a header that can be read.
                    _ if changed[at].is_ascii_digit() => random.random_range(b'0'..=b'9'),
                    1 => changed[at],
                    _ => changed[at] ^ 1,
                };
            }
            by_module(&changed, Adapter::from_bytes(&changed, None).ok().as_ref());
            read += usize::from(try_all(&changed));
        }
        assert!(read < 600, "{name}: nothing was refused");
    }
}

/// A few bytes changed, digits mostly to digits.
fn changed(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..changed.len());
        changed[at] = match changed[at] {
            byte if byte.is_ascii_digit() && random.random() => random.random_range(b'0'..=b'9'),
            byte if random.random() => byte ^ 1,
            _ => random.random(),
        };
    }
    changed
}

#[test]
fn no_change_of_a_configuration_is_a_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet");
    std::fs::create_dir(&path).unwrap();
    for source in ["peft_lora/unet", "peft_loha", "peft_lokr", "peft_dora"] {
        let weights = fixture(source).join("adapter_model.safetensors");
        std::fs::copy(weights, path.join("adapter_model.safetensors")).unwrap();
        let config = std::fs::read(fixture(source).join("adapter_config.json")).unwrap();
        let mut read = 0;
        for _ in 0..300 {
            let file = path.join("adapter_config.json");
            std::fs::write(file, changed(&config, &mut random)).unwrap();
            match AdapterFile::load(&path, None) {
                Ok(file) => {
                    read += 1;
                    assert!(file.updates.values().all(Update::is_finite));
                }
                Err(error) => assert!(error.to_string().contains("adapter_"), "{error}"),
            }
        }
        assert!(0 < read && read < 300, "{source}: {read}");
    }
}

#[test]
fn no_change_of_masks_or_recipes_is_a_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let masks = raw(
        r#"{"unet.x.0.dW":{"dtype":"BOOL","shape":[2,3],"data_offsets":[0,6]},"unet.x.1.dW":{"dtype":"U8","shape":[6],"data_offsets":[6,12]}}"#,
        12,
    );
    let recipe = r#"{"method":"mk_della","rank":4,"density":0.5,"epsilon":0.1,"lambda":0.75,"seed":11,
        "weights_by_module":[{"module":"conv_.*","adapter":1,"weight":0.5}]}"#;
    let module = init::gaussian("unet.conv_in", &[4, 3, 3, 3], 2, 2.0, 0).unwrap();
    let term = Some(Term {
        module: &module,
        weight: 1.0,
    });
    let (mut masks_read, mut recipes_run) = (0, 0);
    for _ in 0..2000 {
        masks_read += usize::from(Masks::from_bytes(&changed(&masks, &mut random)).is_ok());
        let text = changed(recipe.as_bytes(), &mut random);
        if let Ok(merge) = serde_json::from_slice::<Merge>(&text) {
            let merged = merge.module("unet.conv_in", &[term, term]);
            recipes_run += usize::from(merged.is_ok());
        }
    }
    assert!(0 < masks_read && masks_read < 2000, "{masks_read}");
    assert!(0 < recipes_run && recipes_run < 2000, "{recipes_run}");
}

#[test]
fn changed_statistics_are_an_error_or_sound() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut statistics = Statistics::new(&[2, 2]);
    let path = "unet.conv_in";
    for adapter in 0..2 {
        let z = init::gaussian_a(path, 9, 4, adapter);
        statistics.add(adapter as usize, &z.view()).unwrap();
    }
    let whole: Calibration = [(path.to_owned(), statistics)].into_iter().collect();
    whole.save(file.path()).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let module = init::gaussian(path, &[4, 3, 3, 3], 2, 2.0, 0).unwrap();
    let term = Some(Term {
        module: &module,
        weight: 1.0,
    });
    let (mut read, mut merged) = (0, 0);
    for _ in 0..2000 {
        std::fs::write(file.path(), changed(&bytes, &mut random)).unwrap();
        let Ok(calibration) = Calibration::load(file.path()) else {
            continue;
        };
        read += 1;
        let merge = Merge {
            calibration: Some(Arc::new(calibration)),
            ..Merge::new(Method::Ssr)
        };
        if let Ok((module, _)) = merge.module(path, &[term, term]) {
            assert!(module.is_finite());
            merged += 1;
        }
    }
    assert!(
        0 < merged && merged <= read && read < 2000,
        "{read} {merged}"
    );
}

#[test]
fn merges_of_changed_files_are_an_error_or_finite() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let bytes = std::fs::read(fixture("kohya_a.safetensors")).unwrap();
    let sound = Adapter::from_bytes(&bytes, None).unwrap();
    let data = 8 + header_length(&bytes);
    let mut merged = 0;
    for method in Method::ALL {
        for _ in 0..12 {
            let mut other = bytes.clone();
            // Numbers of any size, some of them near the ends of their range.
            for _ in 0..4 {
                let at = random.random_range(data..other.len());
                other[at] = random.random();
            }
            let Ok(other) = Adapter::from_bytes(&other, None) else {
                continue;
            };
            let inputs = [Weighted::from(&sound), Weighted::from(&other)];
            let half = Merge {
                density: Some(0.5),
                ..Merge::new(method)
            };
            let known = half.validate([1.0, 1.0].into_iter()).is_ok();
            let merge = if known { half } else { Merge::new(method) };
            if let Ok((result, _)) = merge.run(&inputs) {
                assert!(
                    result.modules.values().all(|module| module.is_finite()),
                    "{method}"
                );
                merged += 1;
            }
        }
    }
    assert!(merged > 200, "{merged}");
}

#[test]
fn few_bytes_do_not_become_endless_memory() {
    // 800 kilobytes of factors each, for 10^10 numbers of an update.
    let n = 100_000;
    let bytes = 4 * n;
    let entry = |part: &str, shape: &str, at: usize| {
        let (start, end) = (at * bytes, (at + 1) * bytes);
        format!(
            r#""lora_unet_conv_in.{part}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#
        )
    };
    let (tall, wide) = (format!("[{n},1]"), format!("[1,{n}]"));
    for parts in [
        vec![("lora_up.weight", &tall), ("lora_down.weight", &wide)],
        vec![
            ("hada_w1_a", &tall),
            ("hada_w1_b", &wide),
            ("hada_w2_a", &tall),
            ("hada_w2_b", &wide),
        ],
        vec![("lokr_w1", &tall), ("lokr_w2", &wide)],
    ] {
        let entries = parts.iter().enumerate();
        let entries: Vec<String> = entries
            .map(|(i, (part, shape))| entry(part, shape, i))
            .collect();
        let file = raw(&format!("{{{}}}", entries.join(",")), parts.len() * bytes);
        let file = AdapterFile::from_bytes(&file, None).unwrap();
        let error = file.updates["unet.conv_in"].delta().unwrap_err();
        assert!(matches!(error, LoraError::TooLarge { .. }), "{error}");
        if parts.len() > 2 {
            let error = file.into_adapter(RankRule::Number(1), None).unwrap_err();
            assert!(error.to_string().contains("unet.conv_in"), "{error}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let name = "lora_unet_conv_in";
    for (tensors, text) in [
        (
            &[
                ("hada_w1_a", "[4,2]"),
                ("hada_w1_b", "[2,3]"),
                ("hada_w2_a", "[4,2]"),
                ("hada_w2_b", "[2,5]"),
            ][..],
            "hada_w2 [4, 5]",
        ),
        (
            &[
                ("hada_w1_a", "[4,3]"),
                ("hada_w1_b", "[2,3]"),
                ("hada_w2_a", "[4,2]"),
                ("hada_w2_b", "[2,3]"),
            ],
            "hada_w1_a [4, 3]",
        ),
        (
            &[
                ("hada_t1", "[2,3,3,3]"),
                ("hada_w1_a", "[2,4]"),
                ("hada_w1_b", "[2,3]"),
                ("hada_w2_a", "[4,2]"),
                ("hada_w2_b", "[2,3]"),
            ],
            "hada_t1 [2, 3, 3, 3]",
        ),
        (
            &[
                ("hada_w1_a", "[4,0]"),
                ("hada_w1_b", "[0,3]"),
                ("hada_w2_a", "[4,0]"),
                ("hada_w2_b", "[0,3]"),
            ],
            "hada_w1_a [4, 0]",
        ),
        (&[("hada_w1_a", "[4,2]")], "lacks its factor hada_w1_b"),
        (&[("lokr_w1", "[2,2]")], "lacks its factor lokr_w2_a"),
        (&[("lokr_w1", "[2]"), ("lokr_w2", "[2,2]")], "[2]"),
        (
            &[("lokr_w1", "[2,2,3,3]"), ("lokr_w2", "[2,2]")],
            "lokr_w1 [2, 2, 3, 3]",
        ),
        (
            &[
                ("lokr_w1", "[2,2]"),
                ("lokr_w1_a", "[2,1]"),
                ("lokr_w2", "[2,2]"),
            ],
            "lokr_w1_a",
        ),
        (
            &[
                ("lokr_w1_a", "[2,1]"),
                ("lokr_w1_b", "[1,2]"),
                ("lokr_w2_a", "[2,2]"),
                ("lokr_w2_b", "[2,2]"),
            ],
            "do not fit",
        ),
        (&[("diff", "[4]")], "[4]"),
        (&[("diff", "[4,0]")], "[4, 0]"),
        (&[("diff", "[4,2]"), ("lokr_w1", "[2,2]")], "two kinds"),
        (
            &[
                ("lora_down.weight", "[2,3,1,1]"),
                ("lora_mid.weight", "[2,4,3,3]"),
                ("lora_up.weight", "[5,2,1,1]"),
            ],
            "lora_mid [2, 4, 3, 3]",
        ),
        (
            &[
                ("lora_down.weight", "[2,3,3,3]"),
                ("lora_mid.weight", "[2,2,3,3]"),
                ("lora_up.weight", "[5,2,1,1]"),
            ],
            "lora_mid [2, 2, 3, 3]",
        ),
        (
            &[
                ("lora_down.weight", "[2,3,1,1]"),
                ("lora_mid.weight", "[3,2,3,3]"),
                ("lora_up.weight", "[5,2,1,1]"),
            ],
            "A [3, 3, 3, 3]",
        ),
        (&[("lora_mid.weight", "[2,2,3,3]")], "lacks its factor A"),
    ] {
        let mut end = 0;
        let entries: Vec<String> = tensors
            .iter()
            .map(|(part, shape)| {
                let lengths: Vec<usize> = serde_json::from_str(shape).unwrap();
                let start = end;
                end += 4 * lengths.iter().product::<usize>();
                format!(r#""{name}.{part}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        let file = raw(&format!("{{{}}}", entries.join(",")), end);
        let error = AdapterFile::from_bytes(&file, None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(text) && error.contains("unet.conv_in"),
            "{text}: {error}"
        );
    }
}
