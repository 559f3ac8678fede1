//! `selma train`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;

use common::models::adapter_of;
use common::{Selma, tiny_sd};
use image::{Rgb, RgbImage};
use selma_dataset::{DatasetWriter, Provenance};
use selma_lora::merge::Calibration;
use selma_lora::{Dtype, Format};
use serde_json::Value;

const SMALL: &str = "train --data data --steps 5 --batch-size 2 --gradient-accumulation 1 --rank 2 --checkpoint-every 2";

/// Four pictures of the size that the tiny model takes.
fn dataset(selma: &Selma) {
    let mut writer = DatasetWriter::open(selma.path("data")).unwrap();
    for index in 0..4_u8 {
        let image = RgbImage::from_fn(16, 16, |x, y| Rgb([index * 40, x as u8, y as u8]));
        let name = format!("{index}.png");
        writer
            .push(&name, &image, "a cat", Provenance::default())
            .unwrap();
    }
    writer.finish().unwrap();
}

fn metrics(selma: &Selma, folder: &str) -> Vec<Value> {
    let text = fs::read_to_string(selma.path(&format!("{folder}/metrics.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_training_leaves_an_adapter_curves_and_what_was_asked_for() {
    let selma = Selma::new();
    dataset(&selma);
    selma
        .run_with(&format!("{SMALL} --out plain --model"), &[&tiny_sd()])
        .ok();
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(selma.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("plain"),
        ["adapter.safetensors", "metrics.jsonl", "training.json"]
    );
    assert_eq!(metrics(&selma, "plain").len(), 5);
    let more =
        "--keep-checkpoints 2 --tensorboard --preview-every 3 --preview dog --out more --model";
    selma
        .run_with(&format!("{SMALL} {more}"), &[&tiny_sd()])
        .ok();
    assert_eq!(
        selma.read("plain/adapter.safetensors"),
        selma.read("more/adapter.safetensors")
    );
    assert_eq!(names("more/checkpoints"), ["step-000002", "step-000004"]);
    assert_eq!(names("more/previews"), ["step-000003", "step-000005"]);
    assert_eq!(names("more/previews/step-000003"), ["0.png"]);
    assert_eq!(names("more/tensorboard").len(), 1);
}

#[test]
fn recomputing_and_options_of_the_noise_are_settings() {
    let selma = Selma::new();
    dataset(&selma);
    let losses = |settings: &str, out: &str| -> Vec<f64> {
        selma.write("train.toml", settings);
        let command = format!("{SMALL} --config train.toml --out {out} --model");
        selma.run_with(&command, &[&tiny_sd()]).ok();
        let metrics = metrics(&selma, out);
        metrics
            .iter()
            .map(|line| line["loss"].as_f64().unwrap())
            .collect()
    };
    let plain = losses("", "plain");
    for (found, expected) in losses("recompute = true", "recompute").iter().zip(&plain) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found}, {expected}");
    }
    for (number, option) in [
        "snr_gamma = 5.0",
        "noise_offset = 0.1",
        "input_perturbation = 0.1",
    ]
    .iter()
    .enumerate()
    {
        assert_ne!(
            losses(option, &format!("other-{number}")),
            plain,
            "{option}"
        );
    }
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let selma = Selma::new();
    dataset(&selma);
    let model = tiny_sd();
    for (settings, parts) in [
        ("snr_gamma = -1.0", ["snr_gamma", "a positive number"]),
        ("noise_offset = -0.1", ["noise_offset", "not below 0"]),
        ("dpo_beta = 0.0", ["dpo_beta", "a positive number"]),
        ("dpo = 1", ["train.toml", "unknown field `dpo`"]),
    ] {
        selma.write("train.toml", settings);
        selma
            .run_with(
                &format!("{SMALL} --config train.toml --out out --model"),
                &[&model],
            )
            .failed(&parts);
    }
    selma
        .run_with(
            &format!("{SMALL} --preset sd3 --out out --model"),
            &[&model],
        )
        .misused(&["sd14", "sd2", "sdxl"]);
    assert!(!selma.path("out").exists());
}

#[test]
fn statistics_for_ssr_are_collected_and_merged_with() {
    const LAYERS: [&str; 2] = [
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "unet.conv_in",
    ];
    let selma = Selma::new();
    for (name, prompt) in [("a", "a cat"), ("b", "two dogs")] {
        let adapter = adapter_of("tiny-sd", &LAYERS);
        let path = selma.path(&format!("{name}.safetensors"));
        adapter.save(path, Format::Kohya, Dtype::F32).unwrap();
        let line = format!("{{\"id\":\"1\",\"skill\":\"{name}\",\"text\":\"{prompt}\"}}\n");
        selma.write(&format!("{name}.jsonl"), line);
    }
    let tasks = "--task a.safetensors=a.jsonl --task b.safetensors=b.jsonl";
    let calibrate = format!("train calibrate {tasks} --steps 2 --out c.safetensors --model");
    selma.run_with(&calibrate, &[&tiny_sd()]).ok();
    let calibration = Calibration::load(selma.path("c.safetensors")).unwrap();
    assert_eq!(calibration.modules.len(), 2);
    // With guidance there are two latents of 8x8 for each of the two tasks.
    assert_eq!(calibration.modules["unet.conv_in"].count(), 2 * 2 * 64);
    let merge = "merge --method ssr --calibration c.safetensors --out m.safetensors";
    selma
        .run(&format!("{merge} a.safetensors b.safetensors"))
        .ok();
    selma.write("none.jsonl", "");
    selma
        .run_with(
            "train calibrate --task a.safetensors=none.jsonl --out d --model",
            &[&tiny_sd()],
        )
        .failed(&["none.jsonl has no prompts"]);
}
