//! Trajectories of every objective over 50 steps against diffusers and PEFT, on the inputs of `parity.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::path::Path;

use burn::tensor::Device;
use common::{
    LOSS_TOLERANCE, assert_factors, batch, folders, initial, learning_rate, outputs, tensor,
};
use selma_diffusion::Checkpoint;
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::schedulers::SchedulerConfig;
use selma_diffusion::weights::Weights;
use selma_train::{
    Batch, Denoising, DiffusionDpo, Draw, Drawn, Feed, Objective, PairBatch, Progress, TrainConfig,
    TrainError, Trainer,
};

/// The inputs of a fixture, again and again.
struct Recorded {
    weights: Weights,
    perturbed: bool,
}

impl Recorded {
    /// The batch of a pass, and the number of the one before.
    fn numbers(&self, pass: usize) -> (usize, usize) {
        let count = self.weights.shape("timesteps").unwrap()[0];
        (pass % count, (pass + count - 1) % count)
    }
}

impl Feed<Batch> for Recorded {
    fn draw(&self, draw: &Draw<'_>, _: &UNet2DConditionModel) -> Result<Drawn<Batch>, TrainError> {
        let (number, before) = self.numbers(draw.pass);
        let mut batch = batch(&self.weights, number);
        if self.perturbed {
            let more = tensor::<4>(&self.weights, "noise", before).mul_scalar(0.1);
            batch.input_noise = Some(batch.noise.clone() + more);
        }
        Ok(Drawn {
            batch,
            samples: vec![2 * number, 2 * number + 1],
        })
    }
}

impl Feed<PairBatch> for Recorded {
    fn draw(
        &self,
        draw: &Draw<'_>,
        _: &UNet2DConditionModel,
    ) -> Result<Drawn<PairBatch>, TrainError> {
        let (number, before) = self.numbers(draw.pass);
        let batch = batch(&self.weights, number);
        Ok(Drawn {
            batch: PairBatch {
                chosen: batch.latents,
                rejected: tensor(&self.weights, "latents", before),
                noise: batch.noise,
                timesteps: batch.timesteps,
                conditioning: batch.conditioning,
            },
            samples: vec![2 * number, 2 * number + 1],
        })
    }
}

/// Trains as the fixture did, and compares the losses.
fn follow<O: Objective>(
    folder: &Path,
    case: &str,
    perturbed: bool,
    objective: impl Fn(&SchedulerConfig) -> O,
) -> (Trainer<O>, Vec<Progress>, Weights)
where
    Recorded: Feed<O::Batch>,
{
    let weights = Weights::open(folder.join("parity/training.safetensors")).unwrap();
    let expected = Weights::open(folder.join("parity/objectives.safetensors")).unwrap();
    let losses = expected.floats(&format!("{case}.losses")).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let (_, scheduler) = checkpoint.scheduler().unwrap();
    let device = Device::flex();
    let config = TrainConfig {
        steps: losses.len(),
        batch_size: 2,
        gradient_accumulation: 1,
        rank: 4,
        alpha: 4.0,
        learning_rate: learning_rate(&weights),
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::from_adapter(
        checkpoint.unet(&device).unwrap().model,
        &scheduler,
        objective(&scheduler),
        config.validate().unwrap(),
        &initial(&weights, &outputs(&weights)),
        &device,
    )
    .unwrap();
    let mut steps = Vec::new();
    let feed = Recorded { weights, perturbed };
    trainer
        .run(&feed, None, &mut |progress| {
            steps.push(progress);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    for (progress, expected) in steps.iter().zip(losses) {
        assert!(
            (progress.loss - expected).abs() <= LOSS_TOLERANCE * expected.abs(),
            "{} {case}, step {}: {}, expected {expected}",
            folder.display(),
            progress.step,
            progress.loss
        );
    }
    (trainer, steps, expected)
}

#[test]
fn denoising_follows_diffusers_and_peft_for_50_steps() {
    for folder in folders() {
        let plain = |scheduler: &_| Denoising::new(scheduler).unwrap();
        let (mut trainer, steps, fixture) = follow(&folder, "denoising", false, plain);
        assert_eq!(steps.len(), 50);
        assert_factors(&mut trainer, &fixture, "denoising");
    }
}

#[test]
fn min_snr_follows_diffusers() {
    for folder in folders() {
        follow(&folder, "min_snr", false, |scheduler| {
            Denoising::new(scheduler).unwrap().with_snr_gamma(Some(5.0))
        });
    }
}

#[test]
fn input_perturbation_follows_diffusers() {
    for folder in folders() {
        let plain = |scheduler: &_| Denoising::new(scheduler).unwrap();
        follow(&folder, "perturbation", true, plain);
    }
}

#[test]
fn dpo_follows_diffusers() {
    for folder in folders() {
        let dpo = |scheduler: &_| DiffusionDpo::new(scheduler, 10.0).unwrap();
        let (_, steps, fixture) = follow(&folder, "dpo", false, dpo);
        // The adapter of the first step changes nothing, so that model and reference are the same.
        assert!((steps[0].loss - std::f32::consts::LN_2).abs() < 1e-5);
        let accuracies = fixture.floats("dpo.accuracies").unwrap();
        let found = steps.iter().map(|step| step.accuracy.unwrap());
        let differ = found.zip(&accuracies).filter(|(x, y)| x != *y).count();
        // A pair of which both pictures are as good is on either side by rounding.
        assert!(differ <= 1, "{differ} of {}", accuracies.len());
    }
}

#[test]
fn a_beta_that_cannot_be_used_is_refused() {
    for beta in [0.0, -1.0, f64::NAN] {
        let error = DiffusionDpo::new(&SchedulerConfig::default(), beta).unwrap_err();
        assert!(error.to_string().contains("dpo_beta"), "{error}");
    }
}

/// One sample of a batch has no finite loss, or no finite gradient.
struct Spoilt(Recorded, f32);

impl Feed<Batch> for Spoilt {
    fn draw(
        &self,
        draw: &Draw<'_>,
        unet: &UNet2DConditionModel,
    ) -> Result<Drawn<Batch>, TrainError> {
        let mut drawn = Feed::<Batch>::draw(&self.0, draw, unet)?;
        if draw.pass == 2 {
            let latents = drawn.batch.latents.clone();
            let second = latents.clone().slice(1..2).mul_scalar(self.1);
            drawn.batch.latents = latents.slice_assign([1..2, 0..4, 0..4, 0..4], second);
        }
        Ok(drawn)
    }
}

#[test]
fn a_sample_that_spoils_the_loss_is_named_and_nothing_is_changed_by_it() {
    // Of velocities, so that large latents are in the target as well.
    let folder = folders().remove(1);
    let weights = Weights::open(folder.join("parity/training.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let (_, scheduler) = checkpoint.scheduler().unwrap();
    let device = Device::flex();
    let config = TrainConfig {
        steps: 5,
        batch_size: 2,
        gradient_accumulation: 1,
        rank: 4,
        alpha: 4.0,
        ..TrainConfig::default()
    };
    let feed = Recorded {
        weights,
        perturbed: false,
    };
    // The second overflows in the square of the loss alone.
    let mut feed = Spoilt(feed, f32::NAN);
    for spoil in [f32::NAN, 1e30] {
        feed.1 = spoil;
        let mut trainer = Trainer::from_adapter(
            checkpoint.unet(&device).unwrap().model,
            &scheduler,
            Denoising::new(&scheduler).unwrap(),
            config.clone().validate().unwrap(),
            &initial(&feed.0.weights, &outputs(&feed.0.weights)),
            &device,
        )
        .unwrap();
        let mut last = None;
        let error = trainer
            .run(&feed, None, &mut |progress| {
                last = Some(progress.step);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap_err();
        let TrainError::NonFinite { step, samples, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((step, samples, last), (3, vec![5], Some(2)));
        let adapter = trainer.adapter().unwrap();
        assert!(adapter.modules.values().all(|module| module.is_finite()));
    }
}
