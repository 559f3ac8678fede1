//! Parity of whole runs with diffusers: prompt to picture.
//!
//! The fixtures come from `tools/make_diffusion_fixtures.py`. Folders of the same layout that the environment variable
//! `SELMA_PARITY_DIR` names (separated by colons) are checked too.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

use burn::tensor::FloatDType;
use common::{device, files, fixture, folders, relative_error, tiny};
use selma_diffusion::image::to_tensor;
use selma_diffusion::pipeline::{Latents, MicroConditioning};
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::weights::Weights;
use selma_diffusion::{
    Checkpoint, CheckpointOptions, ConfigSource, DiffusionError, StableDiffusion, TextToImage,
};
use serde_json::Value;

/// After a full loop; rounding is amplified from step to step.
const TOLERANCE: f32 = 2e-3;

fn request() -> TextToImage {
    let mut request = TextToImage::new(vec!["a red circle".to_owned()], vec![3]);
    request.steps = 4;
    request
}

#[test]
fn a_run_gives_the_latents_and_the_picture_of_diffusers() {
    for folder in folders() {
        let pipeline = StableDiffusion::load(&folder, &device()).unwrap();
        let expected = Weights::open(folder.join("parity/loop.safetensors")).unwrap();
        let text = std::fs::read_to_string(folder.join("parity/loop.json")).unwrap();
        let case: Value = serde_json::from_str(&text).unwrap();
        let init = Latents::from_weights(&expected, "init_latents").unwrap();
        for (kind, steps) in [
            (SchedulerKind::Ddim, "steps"),
            (SchedulerKind::Pndm, "steps"),
            (SchedulerKind::Euler, "steps"),
            (SchedulerKind::Ddpm, "ddpm_steps"),
        ] {
            for guidance in ["1.0", "7.5"] {
                let mut request =
                    TextToImage::new(vec![case["prompt"].as_str().unwrap().to_owned()], vec![0]);
                let negative = case["negative_prompt"].as_str().map(str::to_owned);
                request.negative_prompts = negative.into_iter().collect();
                request.steps = case[steps].as_u64().unwrap() as usize;
                request.guidance = Some(guidance.parse().unwrap());
                request.scheduler = Some(kind);
                request.init_latents = Some(init.clone());
                let generated = pipeline
                    .generate(&request, &mut |_| ControlFlow::Continue(()))
                    .unwrap();
                let key = format!("{kind}.g{guidance}");
                let (latents, _) = expected.require(&format!("{key}.latents")).unwrap();
                let error = relative_error(&generated.latents.values, &latents);
                assert!(error <= TOLERANCE, "{}: {key}: {error}", folder.display());
                let (image, _) = expected.require(&format!("{key}.image")).unwrap();
                let found = to_tensor(&generated.images, &device()).unwrap();
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                let found: Vec<f32> = found.iter().map(|value| value / 2.0 + 0.5).collect();
                // One grey level in 255 is lost by rounding to bytes.
                let worst = found
                    .iter()
                    .zip(&image)
                    .fold(0f32, |max, (found, expected)| {
                        max.max((found - expected).abs())
                    });
                assert!(
                    worst <= TOLERANCE + 0.5 / 255.0,
                    "{}: {key}: {worst}",
                    folder.display()
                );
            }
        }
    }
}

/// A request as `options.json` has it, by diffusers' names.
fn request_of(options: &Value) -> TextToImage {
    let pair = |name: &str| {
        let numbers = options[name].as_array()?;
        Some([0, 1].map(|index| numbers[index].as_u64().unwrap() as usize))
    };
    let prompt = options["prompt"].as_str().unwrap().to_owned();
    let mut request = TextToImage::new(vec![prompt], vec![0]);
    let negative = options["negative_prompt"].as_str();
    request.negative_prompts = negative.map(str::to_owned).into_iter().collect();
    request.steps = options["num_inference_steps"].as_u64().unwrap() as usize;
    request.guidance = options["guidance_scale"].as_f64();
    request.clip_skip = options["clip_skip"].as_u64().map(|skip| skip as usize);
    request.micro_conditioning = MicroConditioning {
        original_size: pair("original_size"),
        crops_coords_top_left: pair("crops_coords_top_left").unwrap_or_default(),
        target_size: pair("target_size"),
        negative_original_size: pair("negative_original_size"),
        negative_crops_coords_top_left: pair("negative_crops_coords_top_left").unwrap_or_default(),
        negative_target_size: pair("negative_target_size"),
    };
    request
}

#[test]
fn options_of_texts_and_sizes_do_what_they_do_in_diffusers() {
    for folder in folders() {
        let Ok(expected) = Weights::open(folder.join("parity/options.safetensors")) else {
            continue;
        };
        let pipeline = StableDiffusion::load(&folder, &device()).unwrap();
        let text = std::fs::read_to_string(folder.join("parity/options.json")).unwrap();
        let cases: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() >= 7);
        for (name, options) in &cases {
            let mut request = request_of(options);
            request.init_latents = Some(Latents::from_weights(&expected, "init_latents").unwrap());
            let generated = pipeline
                .generate(&request, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let (latents, _) = expected.require(name).unwrap();
            let error = relative_error(&generated.latents.values, &latents);
            assert!(error <= TOLERANCE, "{}: {name}: {error}", folder.display());
        }
    }
}

#[test]
fn texts_that_are_cut_are_told() {
    for (name, length) in [("tiny-sd", 75), ("tiny-sdxl", 14)] {
        let pipeline = StableDiffusion::load(fixture(name), &device()).unwrap();
        let mut request = request();
        // A word a token.
        request.prompts = vec![
            "the ".repeat(length),
            format!("{}a red\n CAT", "the ".repeat(length)),
        ];
        request.seeds = vec![1, 2];
        request.negative_prompts = vec!["the ".repeat(length + 1)];
        let mut told = Vec::new();
        pipeline
            .generate(&request, &mut |state| {
                told.push(state.truncated.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(told.len() >= request.steps);
        for told in told {
            let cut: Vec<&str> = told
                .iter()
                .map(|truncated| truncated.cut.as_str())
                .collect();
            assert_eq!(cut, ["a red\n CAT", "the "], "{name}");
            assert_eq!(told[0].text, request.prompts[1]);
            assert_eq!(told[1].dropped, 1);
            assert!(told[0].dropped >= 3);
        }
    }
}

#[test]
fn a_picture_does_not_depend_on_its_batch() {
    for name in ["tiny-sd", "tiny-sdxl"] {
        does_not_depend_on_its_batch(&StableDiffusion::load(fixture(name), &device()).unwrap());
    }
}

fn does_not_depend_on_its_batch(pipeline: &StableDiffusion) {
    let mut both = request();
    both.prompts.push("two blue squares".to_owned());
    both.seeds = vec![3, 4];
    for kind in SchedulerKind::ALL {
        both.scheduler = Some(kind);
        let mut alone = both.clone();
        alone.prompts.remove(0);
        alone.seeds.remove(0);
        let together = pipeline
            .generate(&both, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let alone = pipeline
            .generate(&alone, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let second = &together.latents.values[together.latents.len_of_image()..];
        assert!(
            relative_error(second, &alone.latents.values) < 1e-4,
            "{kind}"
        );
    }
}

#[test]
fn half_precision_stays_close() {
    for folder in folders() {
        let pipeline = StableDiffusion::load(folder, &device()).unwrap();
        let request = request();
        let full = pipeline
            .generate(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        for (dtype, tolerance) in [(FloatDType::F16, 0.02), (FloatDType::BF16, 0.2)] {
            if !device().supports_dtype(dtype) {
                continue;
            }
            let half = pipeline.clone().with_dtype(dtype);
            let half = half
                .generate(&request, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let error = relative_error(&half.latents.values, &full.latents.values);
            assert!(error < tolerance, "{dtype:?}: {error}");
        }
    }
}

#[test]
fn the_vae_of_sdxl_stays_in_f32_where_f16_would_overflow() {
    let vae_dtype = |name, force_upcast, dtype| {
        let mut pipeline = StableDiffusion::load(fixture(name), &device()).unwrap();
        pipeline.vae_config.force_upcast = force_upcast;
        let pipeline = pipeline.with_dtype(dtype);
        assert_eq!(pipeline.dtype(), dtype);
        let weight = pipeline.vae.decoder.conv_in.weight.val();
        assert_eq!(FloatDType::from(weight.dtype()), pipeline.vae_dtype());
        let generated = pipeline.generate(&request(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(generated.unwrap().images.len(), 1);
        pipeline.vae_dtype()
    };
    let (half, brain, single) = (FloatDType::F16, FloatDType::BF16, FloatDType::F32);
    for (name, force_upcast, dtype, expected) in [
        ("tiny-sdxl", true, half, single),
        ("tiny-sdxl", false, half, half),
        ("tiny-sdxl", true, brain, brain),
        ("tiny-sd", true, half, half),
    ] {
        if device().supports_dtype(dtype) {
            assert_eq!(vae_dtype(name, force_upcast, dtype), expected);
        }
    }
}

/// Loaded in half precision, or converted after loading: the same networks.
#[test]
fn networks_are_loaded_in_the_type_that_is_asked_for() {
    for folder in folders() {
        let options = CheckpointOptions {
            dtype: Some(FloatDType::F16),
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(&folder, options).unwrap();
        let loaded = StableDiffusion::from_checkpoint(&checkpoint, &device()).unwrap();
        let converted = StableDiffusion::load(&folder, &device()).unwrap();
        let converted = converted.with_dtype(FloatDType::F16);
        assert_eq!(loaded.dtype(), FloatDType::F16);
        assert_eq!(loaded.vae_dtype(), converted.vae_dtype());
        let latents = |pipeline: &StableDiffusion| {
            let drawn = pipeline.generate(&request(), &mut |_| ControlFlow::Continue(()));
            drawn.unwrap().latents.values
        };
        assert_eq!(latents(&loaded), latents(&converted));
    }
}

/// A VAE in a folder or a file of its own, in both layouts, draws as it does in its pipeline.
#[test]
fn a_vae_from_elsewhere_takes_the_place_of_the_own_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    files::copy_folder(&fixture("tiny-sd"), &at("blind"));
    fs::remove_dir_all(at("blind/vae")).unwrap();
    let original = files::original("tiny-sd");
    let vae = original.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("first_stage_model.")?;
        Some((name.to_owned(), tensor.clone()))
    });
    files::write(&at("vae.safetensors"), &vae.collect());
    files::write(&at("whole.safetensors"), &original);
    let own = fixture("tiny-sd/vae/diffusion_pytorch_model.safetensors");
    let picture = |pipeline: &StableDiffusion| {
        let drawn = pipeline.generate(&request(), &mut |_| ControlFlow::Continue(()));
        drawn.unwrap().images.remove(0)
    };
    let expected = picture(&StableDiffusion::load(fixture("tiny-sd"), &device()).unwrap());
    for vae in [
        fixture("tiny-sd/vae"),
        fixture("tiny-sd"),
        at("vae.safetensors"),
        at("whole.safetensors"),
        own,
    ] {
        let options = CheckpointOptions {
            // A file does not say into how many groups its norms go.
            config: Some(ConfigSource::Folder(fixture("tiny-sd"))),
            vae: Some(vae.clone()),
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(at("blind"), options).unwrap();
        let pipeline = StableDiffusion::from_checkpoint(&checkpoint, &device()).unwrap();
        assert_eq!(picture(&pipeline), expected, "{}", vae.display());
        let last = checkpoint.weight_files().unwrap().pop().unwrap();
        assert!(last.starts_with(&vae), "{}", last.display());
    }
    let mut strange = original;
    strange.insert(
        "first_stage_model.encoder.more".to_owned(),
        strange.values().next().unwrap().clone(),
    );
    files::write(&at("strange.safetensors"), &strange);
    for (vae, expected) in [
        (fixture("tiny-sd/unet/config.json"), "config.json"),
        (at("none"), "config.json"),
        (
            at("strange.safetensors"),
            "1 unused (first_stage_model.encoder.more)",
        ),
    ] {
        let options = CheckpointOptions {
            config: Some(ConfigSource::Folder(fixture("tiny-sd"))),
            vae: Some(vae),
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(at("blind"), options).unwrap();
        let error = checkpoint.vae(&device()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

type Spoil = fn(&mut TextToImage);

#[test]
fn a_request_that_cannot_be_met_is_refused_before_any_step() {
    let pipeline = tiny();
    let cases: [(&str, Spoil); 7] = [
        ("prompts", |request| request.prompts.clear()),
        ("seeds", |request| request.seeds.push(1)),
        ("width", |request| request.width = Some(17)),
        ("height", |request| request.height = Some(0)),
        ("clip_skip: expected at most 2, found 3", |request| {
            request.clip_skip = Some(3)
        }),
        ("micro-conditioning", |request| {
            request.micro_conditioning.target_size = Some([16, 16]);
        }),
        ("initial latents", |request| {
            request.init_latents = Some(Latents::noise(&[0], 4, 3, 3));
        }),
    ];
    for (name, spoil) in cases {
        let mut request = request();
        spoil(&mut request);
        let error = pipeline
            .generate(&request, &mut |_| panic!("a step was made"))
            .unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn an_observer_can_stop_a_run() {
    let pipeline = tiny();
    let mut steps = 0;
    let result = pipeline.generate(&request(), &mut |state| {
        steps = state.step;
        if state.step == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(result, Err(DiffusionError::Cancelled)));
    assert_eq!(steps, 2);
}

#[test]
fn latents_survive_a_file_and_a_wrong_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latents.safetensors");
    let latents = Latents::noise(&[1, 2], 4, 8, 8);
    latents.save(&path).unwrap();
    assert_eq!(Latents::load(&path).unwrap(), latents);
    std::fs::write(&path, b"not a file of tensors").unwrap();
    let error = Latents::load(&path).unwrap_err().to_string();
    assert!(error.contains("latents.safetensors"), "{error}");
    let other = fixture("tiny-sd/parity/clip.safetensors");
    let error = Latents::load(other).unwrap_err().to_string();
    assert!(
        error.contains("\"latents\"") && error.contains("last_hidden_state"),
        "{error}"
    );
}
