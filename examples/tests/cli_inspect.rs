//! `selma inspect`, and what all sub-commands have in common.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use common::models::{files, single_file, weights};
use common::{Selma, expert, fixture, tiny_sd, tiny_sdxl};
use image::RgbImage;
use selma_dataset::{DatasetWriter, Provenance};
use serde_json::{Value, json};

fn pipeline(name: &str) -> String {
    fixture(&format!("selma-diffusion/tests/fixtures/{name}"))
}

fn shown(selma: &Selma, path: &str) -> Value {
    shown_with(selma, &[path])
}

fn shown_with(selma: &Selma, args: &[&str]) -> Value {
    let ended = selma.run_with("inspect --json", args).ok();
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn an_adapter_is_described() {
    let selma = Selma::new();
    let ended = selma.run_with("inspect", &[&expert('a')]).ok();
    for part in [
        "expert_a.safetensors",
        "format",
        "ranks",
        "alphas",
        "f32",
        "norm of dW",
        "unet.",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let found = shown(&selma, &expert('a'));
    let modules = found["modules"].as_array().unwrap();
    assert!(!modules.is_empty());
    let parameters: u64 = modules
        .iter()
        .map(|module| module["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(found["parameters"], parameters);
    // A folder of PEFT, one for each component.
    let folder = fixture("selma-lora/tests/fixtures/peft_lora");
    for path in [folder.clone(), format!("{folder}/unet")] {
        let ended = selma.run_with("inspect", &[&path]).ok();
        assert!(ended.text().contains("peft, f32"), "{}", ended.text());
    }
    let kinds = fixture("selma-lora/tests/fixtures/lycoris_kinds.safetensors");
    let ended = selma.run_with("inspect", &[&kinds]).ok();
    for part in ["LoHa 4, LoKr 6", "kind", "unet."] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    assert_eq!(
        shown(&selma, &kinds)["modules"].as_array().unwrap().len(),
        12
    );
}

#[test]
fn a_model_is_described() {
    let selma = Selma::new();
    let ended = selma.run_with("inspect", &[&tiny_sd()]).ok();
    for part in [
        "none of the published sizes",
        "text_encoder",
        "unet",
        "vae",
        "predicts",
        "epsilon",
        "PNDMScheduler",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let found = shown(&selma, &tiny_sd());
    assert_eq!(found["prediction_type"], "epsilon");
    assert_eq!(found["components"].as_array().unwrap().len(), 3);
    assert!(found["parameters"].as_u64().unwrap() > 10_000);
    let sdxl = shown(&selma, &tiny_sdxl());
    let second = &sdxl["components"][1];
    assert_eq!(second["name"], "text_encoder_2");
    assert_eq!(second["class"], "CLIPTextModelWithProjection");
    assert_eq!(found["components"][1]["dtypes"], json!(["f32"]));
    let half = shown(&selma, &pipeline("tiny-sd-v"));
    assert_eq!(half["prediction_type"], "v_prediction");
    assert_eq!(half["components"][1]["dtypes"], json!(["f16"]));
}

#[test]
fn a_single_file_is_described_by_its_family() {
    let selma = Selma::new();
    for (name, family) in [
        ("tiny-sd", "Stable Diffusion 1"),
        ("tiny-sd-v", "Stable Diffusion 2"),
        ("tiny-sdxl", "Stable Diffusion XL"),
    ] {
        single_file(name, &selma.path("single.safetensors"));
        let config = pipeline(name);
        let found = shown_with(&selma, &["single.safetensors", "--config", &config]);
        let folder = shown(&selma, &config);
        assert_eq!(found["family"], family);
        assert_eq!(found["assumed"], false);
        assert_eq!(found["parameters"], folder["parameters"]);
        for list in ["missing", "unused", "misfit"] {
            for component in found["components"].as_array().unwrap() {
                assert_eq!(component[list], json!([]), "{name}: {component}");
            }
        }
    }
    let mut tensors = files::original("tiny-sd");
    let key = "model.diffusion_model.out.2.bias";
    let bias = tensors.remove(key).unwrap();
    tensors.insert("model.diffusion_model.more".to_owned(), bias);
    files::write(&selma.path("odd.safetensors"), &tensors);
    let ended = selma
        .run_with("inspect odd.safetensors --config", &[&tiny_sd()])
        .ok();
    for part in [
        "family",
        "Stable Diffusion 1",
        "unet: 1 missing: conv_out.bias",
        "unet: 1 unused: model.diffusion_model.more",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
}

#[test]
fn what_does_not_fit_a_model_is_listed() {
    let selma = Selma::new();
    files::copy_folder(Path::new(&tiny_sd()), &selma.path("sd"));
    let unet = weights(&selma.path("sd"), "unet");
    let mut tensors = files::tensors(&unet);
    tensors.remove("conv_in.bias").unwrap();
    let (dtype, _, bytes) = tensors.remove("conv_out.bias").unwrap();
    tensors.insert(
        "conv_out.bias".to_owned(),
        (dtype, vec![1, bytes.len() / 4], bytes),
    );
    let extra = tensors.values().next().unwrap().clone();
    tensors.insert("conv_more.weight".to_owned(), extra);
    fs::remove_file(&unet).unwrap();
    files::write(&unet, &tensors);
    let found = shown(&selma, "sd");
    let component = &found["components"][1];
    assert_eq!(component["name"], "unet");
    assert_eq!(component["missing"], json!(["conv_in.bias"]));
    assert_eq!(component["unused"], json!(["conv_more.weight"]));
    let misfit = component["misfit"][0].as_str().unwrap();
    assert!(
        misfit.starts_with("conv_out.bias") && misfit.contains("[4]") && misfit.contains("[1, 4]"),
        "{misfit}"
    );
    let text = selma.run("inspect sd").ok();
    assert!(
        text.text()
            .contains("unet: 1 of another shape or type: conv_out.bias"),
        "{}",
        text.text()
    );
}

#[test]
fn a_dataset_is_described() {
    let selma = Selma::new();
    let mut writer = DatasetWriter::open(selma.path("data")).unwrap();
    for (index, text) in ["a cat", "a cat", "a very red dog"].iter().enumerate() {
        let provenance = Provenance {
            skill: "coco".to_owned(),
            ..Provenance::default()
        };
        let name = format!("{index}.png");
        writer
            .push(&name, &RgbImage::new(8, 4), text, provenance)
            .unwrap();
    }
    selma.run("inspect data").failed(&["data", "unfinished"]);
    writer.finish().unwrap();
    let ended = selma.run("inspect data").ok();
    for part in ["8x4 (3)", "coco (3)", "2 distinct, 2 to 4 words"] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    assert_eq!(shown(&selma, "data")["samples"], 3);
    let rows = fs::read_to_string(selma.path("data/metadata.jsonl")).unwrap();
    fs::write(
        selma.path("data/metadata.jsonl"),
        rows.replace("1.png", "../1.png"),
    )
    .unwrap();
    selma
        .run("inspect data")
        .failed(&["data/metadata.jsonl, line 2", "../1.png"]);
}

#[test]
fn what_is_none_of_these_is_an_error() {
    let selma = Selma::new();
    selma.write("text", "hello");
    fs::create_dir(selma.path("empty")).unwrap();
    selma.run("inspect no").failed(&["no does not exist"]);
    selma
        .run("inspect text")
        .failed(&["text", "not a readable safetensors file"]);
    selma.run("inspect empty").failed(&[
        "empty",
        "model_index.json",
        "metadata.jsonl",
        "adapter_config.json",
    ]);
    selma.run("inspect").misused(&["FILE|DIR"]);
}

#[test]
fn every_sub_command_explains_itself_with_an_example() {
    let selma = Selma::new();
    let all = selma.run("--help").ok();
    for command in [
        "prompts", "filter", "generate", "pairs", "merge", "resize", "extract", "convert", "diff",
        "fuse", "inspect", "eval dsg",
    ] {
        let name = command.split(' ').next().unwrap();
        assert!(all.text().contains(&format!("  {name}")), "{name}");
        let help = selma.run(&format!("{command} --help")).ok();
        assert!(
            help.text().contains(&format!("selma {command} ")),
            "{}",
            help.text()
        );
        assert!(help.text().contains("Example"), "{}", help.text());
    }
    selma.run("").misused(&["Usage"]);
    selma.run("frobnicate").misused(&["frobnicate"]);
    assert!(selma.run("--version").ok().text().starts_with("selma "));
}

/// As with `selma inspect FILE | head -0`.
#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let selma = Selma::new();
    let mut child = selma
        .command("inspect")
        .arg(expert('a'))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = common::Ended::of(child.wait_with_output().unwrap()).ok();
    assert_eq!(ended.stderr, "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let selma = Selma::new();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = selma
        .command("inspect")
        .arg(expert('a'))
        .stdout(full)
        .output()
        .unwrap();
    common::Ended::of(output).failed(&["standard output", "No space"]);
}
