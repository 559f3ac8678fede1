//! Parity of LoRA training with diffusers and PEFT: the same factors, batches, noise and timesteps.
//!
//! The fixtures come from `tools/make_diffusion_fixtures.py` and lie with those of selma-diffusion. Folders of the same
//! layout that the environment variable `SELMA_PARITY_DIR` names (separated by colons) are checked too.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use burn::tensor::Device;
use common::{LOSS_TOLERANCE, assert_factors, batch, folders, initial, learning_rate, outputs};
use selma_diffusion::Checkpoint;
use selma_diffusion::weights::Weights;
use selma_train::{Batch, Denoising, Drawn, TrainConfig, Trainer};

#[test]
fn losses_and_factors_follow_diffusers_and_peft() {
    for folder in folders() {
        let fixture = Weights::open(folder.join("parity/training.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let (_, scheduler) = checkpoint.scheduler().unwrap();
        let device = Device::flex();
        for accumulation in [1, 2] {
            let Some(losses) = fixture.floats(&format!("accum{accumulation}.losses")) else {
                continue;
            };
            let config = TrainConfig {
                steps: losses.len() / accumulation,
                gradient_accumulation: accumulation,
                rank: 4,
                alpha: 4.0,
                learning_rate: learning_rate(&fixture),
                ..TrainConfig::default()
            };
            let mut trainer = Trainer::from_adapter(
                checkpoint.unet(&device).unwrap().model,
                &scheduler,
                Denoising::new(&scheduler).unwrap(),
                config.validate().unwrap(),
                &initial(&fixture, &outputs(&fixture)),
                &device,
            )
            .unwrap();
            for (step, expected) in losses.chunks(accumulation).enumerate() {
                let start = step * accumulation;
                let batches: Vec<Drawn<Batch>> = (start..start + accumulation)
                    .map(|step| Drawn {
                        batch: batch(&fixture, step),
                        samples: Vec::new(),
                    })
                    .collect();
                let found = trainer.optimize(&batches).unwrap().loss;
                let expected = expected.iter().sum::<f32>() / accumulation as f32;
                assert!(
                    (found - expected).abs() <= LOSS_TOLERANCE * expected.abs(),
                    "{} step {step}: {found}, expected {expected}",
                    folder.display()
                );
            }
            assert_factors(&mut trainer, &fixture, &format!("accum{accumulation}"));
        }
    }
}
