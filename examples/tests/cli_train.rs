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
        [
            "adapter.safetensors",
            "metrics.jsonl",
            "timing.jsonl",
            "training.json"
        ]
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
fn a_base_in_16_bits_and_two_devices_are_flags() {
    let selma = Selma::new();
    dataset(&selma);
    let adapter = |options: &str, out: &str| {
        let command = format!("{SMALL} {options} --out {out} --model");
        selma.run_with(&command, &[&tiny_sd()]).ok();
        selma.read(&format!("{out}/adapter.safetensors"))
    };
    let plain = adapter("", "plain");
    assert_ne!(adapter("--dtype bf16", "bf16"), plain);
    selma.write("train.toml", "dtype = \"bf16\"\n");
    assert_eq!(
        adapter("--config train.toml", "config"),
        adapter("--dtype bf16", "flag")
    );
    assert_eq!(adapter("--dtype f32", "f32"), plain);
    selma.write("train.toml", "shards = 2\n");
    assert_eq!(
        adapter("--config train.toml", "shards"),
        adapter("--device flex,flex", "devices")
    );
    let three = format!("{SMALL} --device flex,flex,flex --out three --model");
    selma
        .run_with(&three, &[&tiny_sd()])
        .failed(&["shards", "batch_size"]);
    let other = format!("{SMALL} --dtype f8 --out other --model");
    selma.run_with(&other, &[&tiny_sd()]).misused(&["bf16"]);
}

#[test]
fn the_best_checkpoint_by_a_validation_is_picked() {
    let selma = Selma::new();
    dataset(&selma);
    let train = |options: &str| {
        let command = format!("{SMALL} --learning-rate 0.1 --validation data {options} --model");
        selma.run_with(&command, &[&tiny_sd()]).ok();
    };
    train("--out last");
    train("--out best --pick best");
    train("--out all --keep-checkpoints 9");
    let losses = selma.read("last/validation.jsonl");
    assert_eq!(selma.read("best/validation.jsonl"), losses);
    let losses: Vec<(u64, f64)> = String::from_utf8(losses)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            (
                line["step"].as_u64().unwrap(),
                line["loss"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [2, 4, 5]
    );
    let (best, _) = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let load = |path: &str| selma_lora::Adapter::load(selma.path(path)).unwrap();
    let picked = load("best/adapter.safetensors");
    assert_eq!(picked.metadata["selma.steps"], best.to_string());
    assert_eq!(picked.metadata["selma.pick"], "best");
    let expected = match best {
        5 => load("last/adapter.safetensors"),
        step => load(&format!(
            "all/checkpoints/step-{step:06}/adapter.safetensors"
        )),
    };
    for (name, module) in &picked.modules {
        assert_eq!(module.a, expected.modules[name].a, "{name}");
        assert_eq!(module.b, expected.modules[name].b, "{name}");
    }
    assert!(!selma.path("best/checkpoints").exists());
    // Without a validation, or with another choice, it is another training.
    selma
        .run_with(
            &format!("{SMALL} --learning-rate 0.1 --out best --model"),
            &[&tiny_sd()],
        )
        .failed(&["best", "training of other"]);
    selma
        .run_with(
            &format!("{SMALL} --pick best --out no --model"),
            &[&tiny_sd()],
        )
        .misused(&["--validation"]);
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

/// Scores of the four pictures by the scorer `dsg`.
fn scores(selma: &Selma, scores: [f64; 4]) {
    let row = |(index, score)| {
        format!("{{\"file_name\":\"{index}.png\",\"scorer\":\"dsg\",\"score\":{score}}}\n")
    };
    let rows: String = scores.into_iter().enumerate().map(row).collect();
    selma.write("scores.jsonl", rows);
}

#[test]
fn pairs_are_made_of_scores_and_trained_on() {
    let selma = Selma::new();
    dataset(&selma);
    scores(&selma, [0.5, 0.9, 0.1, 0.5]);
    let pairs = "pairs --data data --scores scores.jsonl --out pairs.jsonl --scorer";
    let ended = selma.run(&format!("{pairs} dsg")).ok();
    assert!(
        ended.stderr.contains("1 pairs of 1 prompts"),
        "{}",
        ended.stderr
    );
    let pair: Value = serde_json::from_slice(&selma.read("pairs.jsonl")).unwrap();
    assert_eq!(
        (&pair["chosen"], &pair["rejected"]),
        (&"1.png".into(), &"2.png".into())
    );
    selma
        .run(&format!("{pairs} clip"))
        .failed(&["clip", "0.png"]);

    let small = SMALL.replace("--batch-size 2", "--batch-size 1");
    let train = format!("{small} --pairs pairs.jsonl --out out --model");
    selma.run_with(&train, &[&tiny_sd()]).ok();
    let metrics = metrics(&selma, "out");
    // The adapter changes nothing yet, so that both pictures are as good as they were.
    let first = metrics[0]["loss"].as_f64().unwrap();
    assert!((first - std::f64::consts::LN_2).abs() < 1e-3, "{first}");
    assert!(metrics.iter().all(|line| line["accuracy"].is_number()));
    // The same folder with the pictures instead is another training.
    selma
        .run_with(&format!("{small} --out out --model"), &[&tiny_sd()])
        .failed(&["out"]);
    scores(&selma, [0.5; 4]);
    selma
        .run(&format!("{pairs} dsg"))
        .failed(&["0 pairs", "1 have equal scores"]);
    selma
        .run_with(
            &format!("{small} --data data --pairs pairs.jsonl --out both --model"),
            &[&tiny_sd()],
        )
        .failed(&["--pairs is for one dataset"]);
}

#[test]
fn pictures_are_selected_by_their_scores() {
    let selma = Selma::new();
    dataset(&selma);
    scores(&selma, [0.5, 0.9, 0.1, 0.8]);
    let train = format!("{SMALL} --scores scores.jsonl --rank-by dsg --out out --model");
    let ended = selma
        .run_with(&train, &[&tiny_sd(), "--min", "dsg=0.6"])
        .ok();
    assert!(
        ended.stderr.contains("1 of 4 pictures are used"),
        "{}",
        ended.stderr
    );
    let train = train.replace("--out out", "--out other");
    selma
        .run_with(&train, &[&tiny_sd(), "--min", "dsg=0.95"])
        .failed(&["data", "no picture scores enough"]);
    selma
        .run_with(&train, &[&tiny_sd(), "--min", "dsg"])
        .misused(&["SCORER=SCORE"]);
}

#[test]
fn datasets_of_other_programs_give_the_same_adapter() {
    let selma = Selma::new();
    dataset(&selma);
    let kohya = selma.path("kohya/1_cats");
    fs::create_dir_all(&kohya).unwrap();
    for index in 0..4 {
        fs::copy(
            selma.path(&format!("data/{index}.png")),
            kohya.join(format!("{index}.png")),
        )
        .unwrap();
        fs::write(kohya.join(format!("{index}.txt")), "a cat").unwrap();
    }
    for (data, out) in [("data", "one"), ("kohya", "two")] {
        let train = SMALL.replace("--data data", &format!("--data {data}"));
        selma
            .run_with(&format!("{train} --out {out} --model"), &[&tiny_sd()])
            .ok();
    }
    let bytes = |out: &str| {
        selma_lora::Adapter::load(selma.path(&format!("{out}/adapter.safetensors")))
            .unwrap()
            .modules
    };
    assert!(bytes("one") == bytes("two"));
    fs::remove_file(kohya.join("2.txt")).unwrap();
    let train = SMALL.replace("--data data", "--data kohya");
    let three = format!("{train} --out three --model");
    selma.run_with(&three, &[&tiny_sd()]).failed(&["2.png"]);
    let ended = selma
        .run_with(&three, &[&tiny_sd(), "--skip-unusable"])
        .ok();
    assert!(
        ended.stderr.contains("left out") && ended.stderr.contains("2.png"),
        "{}",
        ended.stderr
    );
}

#[test]
fn pictures_of_any_size_are_resized_and_cut() {
    let selma = Selma::new();
    let mut writer = DatasetWriter::open(selma.path("data")).unwrap();
    for (index, (width, height)) in [(41, 20), (20, 36), (64, 64)].into_iter().enumerate() {
        let name = format!("{index}.png");
        let text = "a cat left of a dog";
        writer
            .push(
                &name,
                &RgbImage::new(width, height),
                text,
                Provenance::default(),
            )
            .unwrap();
    }
    writer.finish().unwrap();
    let model = tiny_sd();
    let train = format!("{SMALL} --out out --model");
    selma
        .run_with(&train, &[&model])
        .failed(&["multiples of", "41x20"]);
    let train = train.replace("--out out", "--out other --resolution 16 --flip");
    let ended = selma.run_with(&train, &[&model]).ok();
    assert!(
        ended.stderr.contains("3 captions speak of left or right"),
        "{}",
        ended.stderr
    );
    let settings: Value = serde_json::from_slice(&selma.read("other/training.json")).unwrap();
    assert_eq!(settings["config"]["geometry"]["resolution"], 16);
    assert_eq!(settings["config"]["geometry"]["flip"], true);
    selma
        .run_with(
            &format!("{SMALL} --out buckets --buckets --model"),
            &[&model],
        )
        .failed(&["resolution"]);
}

#[test]
fn what_was_encoded_is_kept_for_the_next_training() {
    let selma = Selma::new();
    dataset(&selma);
    let train = |flags: &str, out: &str| {
        let command = format!("{SMALL} {flags} --out {out} --model");
        let ended = selma.run_with(&command, &[&tiny_sd()]).ok();
        (
            ended.stderr,
            selma.read(&format!("{out}/adapter.safetensors")),
        )
    };
    let (told, expected) = train("--prefetch 0", "plain");
    assert!(!told.contains("encoded"), "{told}");
    assert!(told.contains("% of the steps' time"), "{told}");
    // Four pictures, their caption, and the empty one.
    let (told, first) = train("--cache cache", "first");
    assert!(
        told.contains("6 pictures and texts encoded, 0 found"),
        "{told}"
    );
    let texts = fs::read_dir(selma.path("cache/texts")).unwrap();
    let texts = texts.map(|entry| entry.unwrap().path()).next().unwrap();
    let text = fs::read_dir(texts).unwrap().next().unwrap().unwrap().path();
    fs::write(&text, b"torn").unwrap();
    let (told, second) = train("--cache cache --prefetch 3", "second");
    assert!(
        told.contains("1 pictures and texts encoded, 5 found"),
        "{told}"
    );
    assert!(told.contains("damaged, and made anew"), "{told}");
    assert!(first == expected && second == expected);
    let timing = String::from_utf8(selma.read("second/timing.jsonl")).unwrap();
    assert_eq!(timing.lines().count(), 5);
    let line: Value = serde_json::from_str(timing.lines().next().unwrap()).unwrap();
    assert!(line["seconds"].as_f64() >= line["waited"].as_f64());
}

#[test]
fn datasets_have_weights() {
    let selma = Selma::new();
    dataset(&selma);
    let two = "--data data";
    let command = format!("{SMALL} {two} --data-weights 2,1 --out out --model");
    selma.run_with(&command, &[&tiny_sd()]).ok();
    let training: Value = serde_json::from_slice(&selma.read("out/training.json")).unwrap();
    assert_eq!(
        training["config"]["data_weights"],
        serde_json::json!([2.0, 1.0])
    );
    for (weights, parts) in [
        ("2", ["1 weights", "2 datasets"]),
        ("2,0", ["data_weights", "positive"]),
    ] {
        let command = command
            .replace("2,1", weights)
            .replace("--out out", "--out other");
        selma.run_with(&command, &[&tiny_sd()]).failed(&parts);
    }
    let command = command.replace("2,1", "2,x");
    selma
        .run_with(&command, &[&tiny_sd()])
        .misused(&["x", "--data-weights"]);
}
