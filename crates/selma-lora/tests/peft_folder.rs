//! Folders of PEFT: what is written is read back, and everything else is refused by name.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use std::{fs, path::Path};

use selma_lora::{Adapter, Dtype, Format, LoraError, init};
use serde_json::{Value, json};

const TO_Q: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV: &str = "unet.up_blocks.1.resnets.2.conv_shortcut";
const TEXT: &str = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";
const TEXT_2: &str = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj";

fn adapter(paths: &[&str]) -> Adapter {
    Adapter::new(paths.iter().enumerate().map(|(i, path)| {
        let shape: &[usize] = if path.contains("conv") {
            &[5, 4, 3, 3]
        } else {
            &[6, 6]
        };
        let mut module = init::gaussian(path, shape, 2 + i, 1.5 * i as f64 - 1.0, 3).unwrap();
        module.b.fill(0.25);
        ((*path).to_owned(), module)
    }))
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn folders_restore_the_adapter_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, paths) in [
        ("one", &[TO_Q, CONV][..]),
        ("text_encoder_2", &[TEXT_2]),
        // Here only a folder of its name tells the second text encoder from the first.
        ("lone", &[TEXT_2]),
        ("unet", &[TEXT]),
        ("all", &[TO_Q, CONV, TEXT, TEXT_2]),
    ] {
        let path = folder.path().join(name);
        let adapter = adapter(paths);
        adapter.save(&path, Format::Peft, Dtype::F32).unwrap();
        let read = Adapter::load(&path).unwrap();
        // Alpha by alpha: no scale is multiplied in.
        assert_eq!(read.modules, adapter.modules, "{name}");
        let source = read.source.as_ref().unwrap();
        assert_eq!((source.format, &source.path), (Format::Peft, &path));

        let first = files(&path);
        read.save(&path, Format::Peft, Dtype::F32).unwrap();
        assert_eq!(files(&path), first, "the same adapter, the same bytes");
    }
    for file in [
        "one",
        "text_encoder_2",
        "lone/text_encoder_2",
        "unet/text_encoder",
    ] {
        assert!(
            folder
                .path()
                .join(file)
                .join("adapter_config.json")
                .is_file(),
            "{file}"
        );
    }
    let text = fs::read_to_string(folder.path().join("all/unet/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["peft_type"], "LORA");
    // Of two equally frequent ranks the larger; an alpha that is no whole number stays what it is.
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(3), &json!(0.5))
    );
    assert_eq!(config["rank_pattern"], json!({&TO_Q[5..]: 2}));
}

#[test]
fn the_bytes_of_one_file_do_without_a_configuration() {
    let adapter = adapter(&[TO_Q, CONV]);
    let bytes = adapter.to_bytes(Format::Peft, Dtype::F32).unwrap();
    let read = Adapter::from_bytes(&bytes, None).unwrap();
    assert_eq!(read.source.as_ref().unwrap().format, Format::Peft);
    let comparison = adapter.compare(&read).unwrap();
    assert!(comparison.relative.unwrap() < 1e-6);
    assert!(read.modules.values().all(|module| module.scale() == 1.0));

    let two = self::adapter(&[TO_Q, TEXT]).to_bytes(Format::Peft, Dtype::F32);
    assert!(matches!(two, Err(LoraError::ManyComponents { .. })));
}

/// Saves a good folder, changes its configuration, and gives the error of reading it.
fn error_with(change: impl Fn(&mut Value)) -> LoraError {
    let folder = tempfile::tempdir().unwrap();
    adapter(&[TO_Q])
        .save(folder.path(), Format::Peft, Dtype::F32)
        .unwrap();
    let file = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    fs::write(&file, config.to_string()).unwrap();
    let error = Adapter::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("adapter_"), "{error}");
    error
}

#[test]
fn configurations_that_change_the_result_are_refused() {
    for (field, value, text) in [
        ("use_dora", json!(true), "DoRA"),
        ("use_qalora", json!(true), "QA-LoRA"),
        ("fan_in_fan_out", json!(true), "transposed"),
        ("lora_bias", json!(true), "bias"),
        ("layer_replication", json!([[0, 2]]), "replicated"),
        ("init_lora_weights", json!("pissa_niter_4"), "PiSSA"),
        ("init_lora_weights", json!("olora"), "OLoRA"),
        ("use_bdlora", json!({"nblocks": 2}), "variant"),
        ("peft_type", json!("IA3"), "IA3"),
        ("peft_type", json!(null), "peft_type"),
        ("r", json!(7), "rank 7"),
        ("r", json!("two"), "expected a number"),
        ("alpha_pattern", json!({"(": 1}), "alpha_pattern"),
        ("rank_pattern", json!([1]), "expected an object"),
    ] {
        let error = error_with(|config| config[field] = value.clone()).to_string();
        assert!(error.contains(text), "{field}: {error}");
    }
    let error = error_with(|config| *config = json!([1])).to_string();
    assert!(error.contains("configuration of PEFT"), "{error}");
}

#[test]
fn fields_of_other_versions_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(&[TO_Q]);
    adapter
        .save(folder.path(), Format::Peft, Dtype::F32)
        .unwrap();
    let file = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (field, value) in [
        ("rank_pattern", json!(null)),
        ("use_dora", json!(false)),
        ("layer_replication", json!(null)),
        ("init_lora_weights", json!("gaussian")),
        ("a_field_of_tomorrow", json!({"x": 1})),
    ] {
        config[field] = value;
    }
    fs::write(&file, config.to_string()).unwrap();
    assert_eq!(
        Adapter::load(folder.path()).unwrap().modules,
        adapter.modules
    );
}

#[test]
fn folders_that_are_not_peft_s_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let error = Adapter::load(path).unwrap_err();
    assert!(matches!(error, LoraError::PeftFolder { .. }));
    assert!(error.to_string().contains("has no adapter_config.json"));

    adapter(&[TO_Q, TEXT])
        .save(path, Format::Peft, Dtype::F32)
        .unwrap();
    // An adapter of one component would lie beside the older one of two.
    let error = adapter(&[TO_Q])
        .save(path, Format::Peft, Dtype::F32)
        .unwrap_err();
    assert!(error.to_string().contains("older adapter"), "{error}");
    fs::write(path.join("adapter_config.json"), "{}").unwrap();
    let error = Adapter::load(path).unwrap_err();
    assert!(error.to_string().contains("also in folders"), "{error}");

    fs::remove_file(path.join("adapter_config.json")).unwrap();
    fs::remove_file(path.join("unet/adapter_model.safetensors")).unwrap();
    let error = Adapter::load(path).unwrap_err();
    assert!(matches!(error, LoraError::Io { action: "read", .. }));

    let none = path.join("none");
    let error = Adapter::default()
        .save(&none, Format::Peft, Dtype::F32)
        .unwrap_err();
    assert!(error.to_string().contains("no LoRA factors"));
    let mut large = adapter(&[TO_Q]);
    large.modules.get_mut(TO_Q).unwrap().a.fill(1e6);
    let error = large.save(&none, Format::Peft, Dtype::F16).unwrap_err();
    assert!(error.to_string().contains("does not fit f16"), "{error}");
    assert!(!none.exists());
}
