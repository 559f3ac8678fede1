//! Configurations that cannot be used: refused with file and field before anything is built, and never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use common::files::copy_folder;
use common::{device, draw, fixture};
use selma_diffusion::config::ConfigError;
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::schedulers::{SchedulerConfig, SchedulerKind, build};
use selma_diffusion::{Checkpoint, CheckpointOptions, ConfigSource, StableDiffusion, TextToImage};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A fixture of a configuration with other values in some fields.
fn changed<C: DeserializeOwned>(file: &str, fields: &Value) -> C {
    let text = fs::read_to_string(fixture(file)).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let config_fields = config.as_object_mut().unwrap();
    config_fields.extend(fields.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// A copy of a pipeline with other values in some fields of one file.
fn pipeline(name: &str, file: &str, fields: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture(name), folder.path());
    let config: Value = changed(&format!("{name}/{file}"), fields);
    fs::write(folder.path().join(file), config.to_string()).unwrap();
    folder
}

#[track_caller]
fn assert_parts(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn sizes_that_no_network_has_are_refused_by_field() {
    #[track_caller]
    fn assert_field(result: Result<(), ConfigError>, field: &str, found: &str) {
        assert_parts(&result.unwrap_err().to_string(), &[field, found]);
    }
    let many = 1_000_000_000;
    for (field, value) in [
        ("norm_num_groups", 0),
        ("in_channels", 0),
        ("out_channels", many),
        ("cross_attention_dim", 0),
        ("layers_per_block", 0),
        ("layers_per_block", many),
        ("transformer_layers_per_block", many),
    ] {
        let config: UNet2DConditionModelConfig =
            changed("tiny-sd/unet/config.json", &json!({ field: value }));
        assert_field(config.validate(), field, &value.to_string());
    }
    let both = json!({"layers_per_block": 1000, "transformer_layers_per_block": 2});
    let config: UNet2DConditionModelConfig = changed("tiny-sd/unet/config.json", &both);
    assert_field(config.validate(), "transformer_layers_per_block", "0 to 1");
    for (field, value) in [
        ("norm_num_groups", 0),
        ("latent_channels", 0),
        ("layers_per_block", 0),
        ("layers_per_block", many),
    ] {
        let config: AutoencoderKLConfig =
            changed("tiny-sd/vae/config.json", &json!({ field: value }));
        assert_field(config.validate(), field, &value.to_string());
    }
    for (field, value) in [
        ("hidden_size", 0),
        ("num_hidden_layers", many),
        ("vocab_size", many),
        ("max_position_embeddings", 0),
    ] {
        let config: ClipTextConfig =
            changed("tiny-sd/text_encoder/config.json", &json!({ field: value }));
        assert_field(config.validate(), field, &value.to_string());
    }
    let levels = json!({"block_out_channels": vec![8; 70]});
    let config: AutoencoderKLConfig = changed("tiny-sd/vae/config.json", &levels);
    assert_field(config.validate(), "block_out_channels", "70");
}

#[test]
fn blocks_that_are_not_known_are_named() {
    for (field, types, name) in [
        (
            "down_block_types",
            json!(["AttnDownBlock2D", "DownBlock2D"]),
            "AttnDownBlock2D",
        ),
        (
            "up_block_types",
            json!(["UpBlock2D", "K_UpBlock2D"]),
            "K_UpBlock2D",
        ),
        ("mid_block_type", json!("UNetMidBlock2D"), "UNetMidBlock2D"),
    ] {
        let folder = pipeline("tiny-sd", "unet/config.json", &json!({ field: types }));
        let error = StableDiffusion::load(folder.path(), &device()).unwrap_err();
        assert_parts(&error.to_string(), &["unet/config.json", field, name]);
    }
    for (field, name) in [
        ("down_block_types", "DownBlock2D"),
        ("up_block_types", "UpBlock2D"),
    ] {
        let types = json!({ field: [name, name] });
        let folder = pipeline("tiny-sd", "vae/config.json", &types);
        let error = StableDiffusion::load(folder.path(), &device()).unwrap_err();
        assert_parts(&error.to_string(), &["vae/config.json", field, name]);
    }
}

#[test]
fn components_that_do_not_fit_each_other_are_named_with_their_fields() {
    let (unet, text, vae) = (
        "unet/config.json",
        "text_encoder/config.json",
        "vae/config.json",
    );
    for (name, file, fields, parts) in [
        (
            "tiny-sd",
            vae,
            json!({"latent_channels": 8}),
            ["in_channels", "latent_channels", vae, "8"],
        ),
        (
            "tiny-sd",
            unet,
            json!({"out_channels": 8}),
            ["out_channels", "in_channels", "expected 4", "8"],
        ),
        (
            "tiny-sd",
            text,
            json!({"hidden_size": 24}),
            ["cross_attention_dim", "hidden_size", text, "24"],
        ),
        (
            "tiny-sdxl",
            unet,
            json!({"cross_attention_dim": 12}),
            [
                "cross_attention_dim",
                "expected 20",
                text,
                "text_encoder_2/config.json",
            ],
        ),
        (
            "tiny-sdxl",
            "text_encoder_2/config.json",
            json!({"projection_dim": 11}),
            [
                "projection_class_embeddings_input_dim",
                "expected 35",
                "projection_dim",
                "24",
            ],
        ),
        (
            "tiny-sdxl",
            unet,
            json!({"addition_embed_type": null}),
            [
                "addition_embed_type",
                "text_time",
                "two text encoders",
                unet,
            ],
        ),
        (
            "tiny-sd",
            unet,
            json!({
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 34,
            }),
            ["addition_embed_type", "null", "one text encoder", unet],
        ),
    ] {
        let folder = pipeline(name, file, &fields);
        let error = StableDiffusion::load(folder.path(), &device()).unwrap_err();
        assert_parts(&error.to_string(), &parts);
        assert_parts(&error.to_string(), &[unet]);
    }
}

#[test]
fn a_tokenizer_with_more_than_the_text_encoder_knows_is_refused() {
    let (text, tokenizer) = (
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
    );
    for (file, fields, parts) in [
        (
            text,
            json!({"vocab_size": 600}),
            ["vocab_size", "634", "600"],
        ),
        (
            tokenizer,
            json!({"model_max_length": 78}),
            ["max_position_embeddings", "78", "model_max_length"],
        ),
    ] {
        let folder = pipeline("tiny-sd", file, &fields);
        let error = Checkpoint::open(folder.path()).unwrap().tokenizer();
        let error = error.unwrap_err().to_string();
        assert_parts(&error, &parts);
        assert_parts(&error, &[text, "/tokenizer"]);
    }
}

fn request(scheduler: Option<SchedulerKind>) -> TextToImage {
    TextToImage {
        steps: 2,
        scheduler,
        ..TextToImage::new(vec!["a red circle".to_owned()], vec![3])
    }
}

#[test]
fn a_scheduler_that_is_not_implemented_is_a_reason_only_where_none_is_asked_for() {
    let file = "scheduler/scheduler_config.json";
    for (fields, name) in [
        (
            json!({"_class_name": "DEISMultistepScheduler"}),
            "DEISMultistepScheduler",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}),
            "algorithm_type",
        ),
        (json!({"_class_name": null}), "_class_name"),
    ] {
        let folder = pipeline("tiny-sd", file, &fields);
        let model = StableDiffusion::load(folder.path(), &device()).unwrap();
        assert_eq!(model.scheduler, None);
        let error = draw(&model, &request(None)).unwrap_err().to_string();
        assert_parts(&error, &[file, name, "--scheduler NAME"]);
        draw(&model, &request(Some(SchedulerKind::Dpmpp2m))).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_parts(
            &checkpoint.scheduler().unwrap_err().to_string(),
            &[file, name],
        );
        // Another configuration goes before it.
        let options = CheckpointOptions {
            config: Some(ConfigSource::Folder(fixture("tiny-sd"))),
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(folder.path(), options).unwrap();
        assert_eq!(checkpoint.scheduler().unwrap().0, SchedulerKind::Pndm);
    }
}

#[test]
fn a_field_that_the_scheduler_cannot_have_is_named_with_its_file() {
    let file = "scheduler/scheduler_config.json";
    for (fields, kind) in [
        (
            json!({"num_train_timesteps": 1_000_000_000}),
            SchedulerKind::Pndm,
        ),
        (
            json!({"clip_sample": true, "clip_sample_range": -1.0}),
            SchedulerKind::Ddim,
        ),
        (
            json!({"solver_p": {"_class_name": "DDIMScheduler"}}),
            SchedulerKind::UniPc,
        ),
    ] {
        let folder = pipeline("tiny-sd", file, &fields);
        let model = StableDiffusion::load(folder.path(), &device()).unwrap();
        let error = draw(&model, &request(Some(kind))).unwrap_err().to_string();
        let field = fields.as_object().unwrap().keys().next_back().unwrap();
        assert_parts(&error, &[file, field]);
    }
}

/// Published configurations with bytes changed: an error, or networks and runs, never a panic. The fuzz target `config` does
/// the same.
#[test]
fn damaged_configurations_do_no_harm() {
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for file in [
        "tiny-sdxl/unet/config.json",
        "tiny-sd/vae/config.json",
        "tiny-sdxl/text_encoder_2/config.json",
        "tiny-sdxl/scheduler/scheduler_config.json",
    ] {
        let whole = fs::read(fixture(file)).unwrap();
        let numbers: Vec<usize> = (0..whole.len())
            .filter(|&at| whole[at].is_ascii_digit())
            .collect();
        for round in 0..600 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 3 {
                bytes[numbers[next(numbers.len())]] = b"0123456789-e."[next(13)];
            }
            if round % 4 == 0 {
                let digits = vec![b'9'; next(22)];
                let at = numbers[next(numbers.len())];
                bytes.splice(at..at, digits);
            }
            use_config(Path::new(file), &bytes);
        }
    }
}

fn use_config(file: &Path, bytes: &[u8]) {
    let device = Device::flex();
    if file.starts_with("tiny-sdxl/scheduler") {
        let Ok(config) = serde_json::from_slice::<SchedulerConfig>(bytes) else {
            return;
        };
        for kind in SchedulerKind::ALL {
            for steps in [1, 5] {
                let Ok(mut scheduler) = build(kind, &config, steps) else {
                    continue;
                };
                let mut sample = [0.5, -0.25];
                for index in 0..scheduler.timesteps().len().min(3) {
                    let mut input = sample;
                    scheduler.scale_model_input(&mut input, index).unwrap();
                    let none = &mut |noise: &mut [f32]| noise.fill(0.5);
                    drop(scheduler.step(&input, index, &mut sample, none));
                }
            }
        }
    } else if file.starts_with("tiny-sdxl/unet") {
        let config = serde_json::from_slice::<UNet2DConditionModelConfig>(bytes);
        drop(config.map(|config| config.init(&device)));
    } else if file.starts_with("tiny-sd/vae") {
        let config = serde_json::from_slice::<AutoencoderKLConfig>(bytes);
        drop(config.map(|config| config.init(&device)));
    } else {
        let config = serde_json::from_slice::<ClipTextConfig>(bytes);
        drop(config.map(|config| config.init(&device)));
    }
}
