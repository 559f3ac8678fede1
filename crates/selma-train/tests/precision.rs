//! A frozen network in 16 bits, several devices, and validation: what they change, and what they leave as it is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use image::{Rgb, RgbImage};
use selma_diffusion::StableDiffusion;
use selma_diffusion::models::{AddedConditioning, Conditioning, TimeIds};
use selma_lora::nn::{LoraLayerMut, LoraLayers, attach};
use selma_lora::{Adapter, Dtype, Format, init};
use selma_train::{
    Denoiser, Denoising, TrainCheckpoints, TrainConfig, TrainError, Trainer, TrainingSet,
    ValidTrainConfig,
};

fn load(name: &str) -> StableDiffusion {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../selma-diffusion/tests/fixtures");
    StableDiffusion::load(fixtures.join(name), &Device::flex()).unwrap()
}

fn set(pipeline: &StableDiffusion, config: &ValidTrainConfig, count: u8) -> TrainingSet {
    let samples = (0..count).map(|index| {
        let image = RgbImage::from_fn(16, 16, |x, y| Rgb([index * 40, x as u8 * 15, y as u8 * 15]));
        Ok((image, format!("picture {index}")))
    });
    TrainingSet::encode::<TrainError>(pipeline, config, None, samples).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 5,
        batch_size: 4,
        gradient_accumulation: 2,
        learning_rate: 1e-2,
        rank: 2,
        alpha: 2.0,
        caption_dropout: 0.3,
        ..TrainConfig::default()
    }
}

fn trainer(pipeline: &StableDiffusion, config: TrainConfig) -> Trainer<Denoising> {
    let scheduler = &pipeline.scheduler_config;
    Trainer::new(
        pipeline.unet.clone(),
        scheduler,
        Denoising::new(scheduler).unwrap(),
        config.validate().unwrap(),
        &Device::flex(),
    )
    .unwrap()
}

/// Trains to the end; losses and the adapter.
fn finish(trainer: &mut Trainer<Denoising>, set: &TrainingSet) -> (Vec<f32>, Vec<u8>) {
    let mut losses = Vec::new();
    trainer
        .run(set, None, &mut |progress| {
            losses.push(progress.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    let adapter = trainer.adapter().unwrap();
    (
        losses,
        adapter.to_bytes(Format::Diffusers, Dtype::F32).unwrap(),
    )
}

#[test]
fn a_network_in_16_bits_is_trained_as_in_32_and_goes_on_to_the_same_bytes() {
    for name in ["tiny-sd", "tiny-sdxl"] {
        let pipeline = load(name);
        let set = set(&pipeline, &config().validate().unwrap(), 5);
        let (expected, _) = finish(&mut trainer(&pipeline, config()), &set);
        for dtype in [Dtype::BF16, Dtype::F16] {
            let config = TrainConfig { dtype, ..config() };
            let (losses, bytes) = finish(&mut trainer(&pipeline, config.clone()), &set);
            // The file of tiny-sdxl is in f16, of which nothing is lost.
            let exact = name == "tiny-sdxl" && dtype == Dtype::F16;
            assert_eq!(losses == expected, exact, "{name} {dtype:?}");
            for (found, expected) in losses.iter().zip(&expected) {
                assert!((found / expected - 1.0).abs() < 1e-2, "{name}: {found}");
            }
            let dir = tempfile::tempdir().unwrap();
            let kept = TrainCheckpoints {
                folder: dir.path(),
                every: 2,
                keep: 1,
            };
            let mut first = trainer(&pipeline, config.clone());
            let stopped = first.run(&set, Some(kept), &mut |progress| match progress.step {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            assert!(stopped.is_err());
            let last = TrainCheckpoints::latest(dir.path()).unwrap().unwrap();
            let scheduler = &pipeline.scheduler_config;
            let mut second = Trainer::resume(
                pipeline.unet.clone(),
                scheduler,
                Denoising::new(scheduler).unwrap(),
                config.validate().unwrap(),
                &last,
                &Device::flex(),
            )
            .unwrap();
            assert_eq!(finish(&mut second, &set).1, bytes, "{name} {dtype:?}");
        }
    }
}

#[test]
fn two_devices_are_one_device_with_as_many_shards() {
    for name in ["tiny-sd", "tiny-sdxl"] {
        let pipeline = load(name);
        let set = set(&pipeline, &config().validate().unwrap(), 5);
        for (shards, recompute) in [(2, false), (3, true)] {
            let config = TrainConfig {
                shards,
                recompute,
                ..config()
            };
            let expected = finish(&mut trainer(&pipeline, config.clone()), &set);
            let two = trainer(&pipeline, config).with_further_devices(&[Device::flex()]);
            assert_eq!(finish(&mut two.unwrap(), &set), expected, "{name} {shards}");
        }
    }
    let one = trainer(&load("tiny-sd"), config());
    let error = one.with_further_devices(&[Device::flex()]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("shards") && error.contains("2 devices"),
        "{error}"
    );
}

#[test]
fn a_validation_is_always_the_same_and_changes_nothing() {
    let pipeline = load("tiny-sd");
    let valid = config().validate().unwrap();
    let data = set(&pipeline, &valid, 5);
    let validation = set(&pipeline, &valid.for_validation(), 3);
    let (losses, bytes) = finish(&mut trainer(&pipeline, config()), &data);
    let mut trainer = trainer(&pipeline, config());
    let mut seen = Vec::new();
    let mut validated = vec![trainer.validate(&validation, 3).unwrap()];
    while !trainer.is_finished() {
        seen.push(trainer.step(&data).unwrap().loss);
        validated.push(trainer.validate(&validation, 3).unwrap());
        assert_eq!(
            trainer.validate(&validation, 3).unwrap(),
            validated[validated.len() - 1]
        );
    }
    assert_eq!(seen, losses);
    let adapter = trainer.adapter().unwrap();
    assert_eq!(
        adapter.to_bytes(Format::Diffusers, Dtype::F32).unwrap(),
        bytes
    );
    assert!(validated.iter().all(|loss| loss.is_finite()));
    assert_ne!(validated[0], validated[5]);
}

#[test]
fn a_checkpoint_is_kept_beside_the_newest() {
    let pipeline = load("tiny-sd");
    let data = set(&pipeline, &config().validate().unwrap(), 5);
    let dir = tempfile::tempdir().unwrap();
    let kept = TrainCheckpoints {
        folder: dir.path(),
        every: 1,
        keep: 1,
    };
    let mut trainer = trainer(&pipeline, config());
    for (step, other) in [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(4))] {
        trainer.step(&data).unwrap();
        kept.save_beside(&trainer, other).unwrap();
        let found = TrainCheckpoints::all(dir.path()).unwrap();
        let found: Vec<usize> = found.into_iter().map(|(step, _)| step).collect();
        let mut expected: Vec<usize> = other.into_iter().chain([step]).collect();
        expected.dedup();
        assert_eq!(found, expected);
    }
}

/// A prediction and the gradient of its squares by a factor `A`: what GPUs compute in 16 bits.
fn predicted(pipeline: &StableDiffusion, dtype: FloatDType, scale: f64) -> (Vec<f32>, Vec<f32>) {
    const LAYER: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v";
    let mut unet = pipeline.clone().with_dtype(dtype).unet;
    let shape = |unet: &mut selma_diffusion::models::UNet2DConditionModel| {
        let layers = unet.lora_layers("unet");
        let found = layers.into_iter().find(|(path, _)| path == LAYER);
        found.unwrap().1.weight_shape()
    };
    let shape = shape(&mut unet);
    let mut module = init::gaussian(LAYER, &shape, 2, 2.0, 1).unwrap();
    module.b.fill(0.5);
    let adapter = Adapter::new([(LAYER.to_owned(), module)]);
    attach(&mut unet, "unet", &adapter, "one", 1.0).unwrap();
    for (_, layer) in unet.lora_layers("unet") {
        if let LoraLayerMut::Linear(layer) = layer {
            for branch in &mut layer.branches {
                branch.a = branch.a.clone().autodiff().require_grad();
            }
        }
    }
    let device = Device::flex();
    let tensor = |count: usize| {
        let values: Vec<f32> = (0..count)
            .map(|x| ((x * 37 % 101) as f32 / 50.0) - 1.0)
            .collect();
        Tensor::<1>::from_data(TensorData::new(values, [count]), &device)
    };
    let width = pipeline.unet_config.cross_attention_dim;
    let added = pipeline
        .unet
        .added_channels
        .map(|(text, _)| AddedConditioning {
            text_embeds: tensor(text).reshape([1, text]),
            time_ids: vec![TimeIds::of_size(16, 16)],
        });
    let conditioning = Conditioning {
        context: tensor(7 * width).reshape([1, 7, width]),
        added,
    };
    let model = Denoiser::new(&unet).computing_in(dtype);
    let noisy = tensor(4 * 64).reshape([1, 4, 8, 8]);
    let prediction = model.predict(noisy, &[500], &conditioning).unwrap();
    let gradients = prediction
        .clone()
        .square()
        .mean()
        .mul_scalar(scale)
        .backward();
    let mut gradient = Vec::new();
    for (_, layer) in unet.lora_layers("unet") {
        if let LoraLayerMut::Linear(layer) = layer {
            for branch in &layer.branches {
                let found = branch.a.grad(&gradients).unwrap().div_scalar(scale);
                gradient.extend(found.into_data().try_to_vec::<f32>().unwrap());
            }
        }
    }
    (
        prediction.into_data().try_to_vec::<f32>().unwrap(),
        gradient,
    )
}

#[test]
fn a_network_that_computes_in_16_bits_predicts_and_differentiates_in_32() {
    for name in ["tiny-sd", "tiny-sdxl"] {
        let pipeline = load(name);
        let expected = predicted(&pipeline, FloatDType::F32, 1.0);
        // A power of two that the loss is multiplied by, and the gradient divided by, changes no digit.
        assert_eq!(predicted(&pipeline, FloatDType::F32, 4096.0), expected);
        for (dtype, tolerance) in [(FloatDType::BF16, 0.3), (FloatDType::F16, 0.05)] {
            let found = predicted(&pipeline, dtype, 4096.0);
            for (found, expected) in [(found.0, &expected.0), (found.1, &expected.1)] {
                let scale = expected.iter().fold(0_f32, |max, x| max.max(x.abs()));
                let pairs = found.iter().zip(expected);
                let error = pairs.fold(0_f32, |max, (a, b)| max.max((a - b).abs()));
                assert!(
                    scale > 0.0 && error <= tolerance * scale,
                    "{name} {dtype:?}: {error} of {scale}"
                );
            }
        }
    }
}
