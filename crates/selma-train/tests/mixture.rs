//! Training the weights of several experts: what moves, what stays, and what an interruption changes (nothing).
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use image::{Rgb, RgbImage};
use selma_diffusion::StableDiffusion;
use selma_lora::{Adapter, LoraError, Mixture, init};
use selma_train::{Denoising, TrainCheckpoints, TrainConfig, TrainError, Trainer, TrainingSet};

fn tiny() -> StableDiffusion {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../selma-diffusion/tests/fixtures");
    StableDiffusion::load(fixtures.join("tiny-sd"), &Device::flex()).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 4,
        batch_size: 2,
        gradient_accumulation: 1,
        learning_rate: 1e-2,
        rank: 2,
        alpha: 2.0,
        ..TrainConfig::default()
    }
}

fn set(pipeline: &StableDiffusion) -> TrainingSet {
    let samples = (0..4u8).map(|index| {
        let image = RgbImage::from_fn(16, 16, |x, y| Rgb([index * 40, x as u8 * 15, y as u8 * 15]));
        Ok((image, format!("picture {index}")))
    });
    TrainingSet::encode::<TrainError>(pipeline, &config().validate().unwrap(), None, samples)
        .unwrap()
}

fn objective(pipeline: &StableDiffusion) -> Denoising {
    Denoising::new(&pipeline.scheduler_config).unwrap()
}

/// Three adapters of all attention layers, with updates that can be seen.
fn experts(pipeline: &StableDiffusion) -> Vec<Adapter> {
    let fresh = Trainer::new(
        pipeline.unet.clone(),
        &pipeline.scheduler_config,
        objective(pipeline),
        config().validate().unwrap(),
        &Device::flex(),
    );
    let fresh = fresh.unwrap().adapter().unwrap();
    let with_updates = |seed| {
        let mut adapter = fresh.clone();
        for (path, module) in &mut adapter.modules {
            let values = init::gaussian_a(path, 4, module.b.len(), seed);
            let values = values.row(0).to_vec();
            module
                .b
                .iter_mut()
                .zip(values)
                .for_each(|(b, value)| *b = value);
        }
        adapter
    };
    (1..4).map(with_updates).collect()
}

fn router(pipeline: &StableDiffusion, top_k: usize) -> Mixture {
    let experts = experts(pipeline);
    Mixture::router(&experts.iter().collect::<Vec<_>>(), top_k, 0).unwrap()
}

fn weights(pipeline: &StableDiffusion) -> Mixture {
    let experts = experts(pipeline);
    Mixture::weights(&experts.iter().collect::<Vec<_>>()).unwrap()
}

fn trainer(
    pipeline: &StableDiffusion,
    config: TrainConfig,
    mixture: &Mixture,
) -> Result<Trainer<Denoising>, TrainError> {
    Trainer::from_mixture(
        pipeline.unet.clone(),
        &pipeline.scheduler_config,
        objective(pipeline),
        config.validate()?,
        mixture,
        &Device::flex(),
    )
}

fn mixture(trainer: &Trainer<Denoising>) -> Mixture {
    trainer.mixture().unwrap().unwrap()
}

/// Which of gates, `down` and `up` are not as they were, in every layer; the same in all of them.
fn moved(before: &Mixture, after: &Mixture) -> [bool; 3] {
    assert_eq!(before.experts, after.experts);
    let mut layers = before.modules.iter().map(|(path, before)| {
        let after = after.modules.get(path).unwrap();
        assert_eq!(before.parts, after.parts);
        [
            before.gate != after.gate,
            before.down != after.down,
            before.up != after.up,
        ]
    });
    let first = layers.next().unwrap();
    assert!(layers.all(|layer| layer == first));
    first
}

#[test]
fn a_training_moves_the_weights_alone_or_the_experts_too() {
    let pipeline = tiny();
    let set = set(&pipeline);
    let joint = TrainConfig {
        train_experts: true,
        ..config()
    };
    for (start, config, expected) in [
        (router(&pipeline, 3), config(), [true, false, false]),
        (router(&pipeline, 2), config(), [true, false, false]),
        (weights(&pipeline), config(), [true, false, false]),
        (router(&pipeline, 3), joint, [true, true, true]),
    ] {
        let mut trainer = trainer(&pipeline, config, &start).unwrap();
        assert_eq!(mixture(&trainer), start);
        let mut steps = 0;
        trainer
            .run(&set, None, &mut |progress| {
                assert!(progress.loss.is_finite() && progress.grad_norm > Some(0.0));
                steps += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(steps, 4);
        assert_eq!(moved(&start, &mixture(&trainer)), expected);
        // It is no adapter.
        let error = trainer.adapter().unwrap_err().to_string();
        assert!(error.contains("a mixture"), "{error}");
    }
}

#[test]
fn computing_again_and_shards_change_nothing_but_rounding() {
    let pipeline = tiny();
    let set = set(&pipeline);
    for start in [router(&pipeline, 3), weights(&pipeline)] {
        let runs = [(false, 1), (true, 1), (true, 2)].map(|(recompute, shards)| {
            let config = TrainConfig {
                recompute,
                shards,
                ..config()
            };
            let mut trainer = trainer(&pipeline, config, &start).unwrap();
            let mut seen = Vec::new();
            trainer
                .run(&set, None, &mut |progress| {
                    seen.extend([progress.loss, progress.grad_norm.unwrap()]);
                    ControlFlow::Continue(())
                })
                .unwrap();
            seen
        });
        let [plain, others @ ..] = runs;
        for (found, expected) in others.iter().flat_map(|run| run.iter().zip(&plain)) {
            assert!((found / expected - 1.0).abs() < 2e-3, "{found}, {expected}");
        }
    }
}

#[test]
fn an_interrupted_training_makes_the_same_mixture() {
    let pipeline = tiny();
    let set = set(&pipeline);
    let joint = TrainConfig {
        train_experts: true,
        ..config()
    };
    for (start, config) in [
        (router(&pipeline, 2), config()),
        (router(&pipeline, 3), joint),
        (weights(&pipeline), config()),
    ] {
        let mut whole = trainer(&pipeline, config.clone(), &start).unwrap();
        whole
            .run(&set, None, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        for stop in 1..4 {
            let dir = tempfile::tempdir().unwrap();
            let kept = TrainCheckpoints {
                folder: dir.path(),
                every: 2,
                keep: 1,
            };
            let mut first = trainer(&pipeline, config.clone(), &start).unwrap();
            let stopped = first.run(
                &set,
                Some(kept),
                &mut |progress| match progress.step == stop {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                },
            );
            assert!(matches!(stopped, Err(TrainError::Cancelled { step }) if step == stop));
            let last = TrainCheckpoints::latest(kept.folder).unwrap().unwrap();
            let mut second = Trainer::resume(
                pipeline.unet.clone(),
                &pipeline.scheduler_config,
                objective(&pipeline),
                config.clone().validate().unwrap(),
                &last,
                &Device::flex(),
            )
            .unwrap();
            second
                .run(&set, None, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            assert_eq!(mixture(&second), mixture(&whole), "stopped at {stop}");
        }
    }
}

#[test]
fn routers_that_cannot_learn_are_refused() {
    let pipeline = tiny();
    let alone = router(&pipeline, 1);
    let error = trainer(&pipeline, config(), &alone)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("top_k") && error.contains("at least 2"),
        "{error}"
    );
    let joint = TrainConfig {
        train_experts: true,
        ..config()
    };
    trainer(&pipeline, joint, &alone).unwrap();
}

#[test]
fn experts_of_other_models_or_other_components_are_refused() {
    let pipeline = tiny();
    let of = |path: &str, shape: &[usize]| {
        let module = init::gaussian(path, shape, 2, 2.0, 0).unwrap();
        Adapter::new([(path.to_owned(), module)])
    };
    let (own, shape) = experts(&pipeline)
        .iter()
        .flat_map(|expert| expert.modules.iter())
        .map(|(path, module)| (path.clone(), module.weight_shape()))
        .next()
        .unwrap();
    let text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";
    for (path, shape) in [
        (text, shape.clone()),
        ("unet.nowhere.to_q", shape),
        (own.as_str(), vec![3, 3]),
    ] {
        let expert = of(path, &shape);
        let mixture = Mixture::weights(&[&expert]).unwrap();
        let error = trainer(&pipeline, config(), &mixture).unwrap_err();
        let named = error.to_string().contains(path);
        let nothing = matches!(error, TrainError::Lora(LoraError::NothingMatched { .. }));
        assert!(named || nothing, "{error}");
    }
}
