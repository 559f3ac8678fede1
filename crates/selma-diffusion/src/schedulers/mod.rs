//! Noise schedules and the samplers that run them backwards, on plain slices.
//!
//! Everything here works on host memory and knows no tensors: a latent is a flat `[f32]`, so that results do not depend on the device. Tables and steps follow
//! diffusers 0.42 (`schedulers/scheduling_*.py`), one file per algorithm.
//!
//! ```
//! use selma_diffusion::schedulers::{PredictionType, SchedulerConfig, SchedulerKind, build};
//!
//! let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
//! let mut scheduler = build(SchedulerKind::Ddim, &config, 20)?;
//! let mut sample = vec![0.5_f32; 16]; // unit normal noise
//! sample.iter_mut().for_each(|x| *x *= scheduler.init_noise_sigma() as f32);
//! for index in 0..scheduler.timesteps().len() {
//!     let mut input = sample.clone();
//!     scheduler.scale_model_input(&mut input, index)?;
//!     let predicted: Vec<f32> = input.iter().map(|x| 0.9 * x).collect(); // the model
//!     scheduler.step(&predicted, index, &mut sample, &mut |noise| noise.fill(0.0))?;
//! }
//! # Ok::<(), selma_diffusion::schedulers::SchedulerError>(())
//! ```

mod arithmetic;
mod betas;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver_multistep;
mod error;
mod euler;
mod euler_ancestral;
mod heun;
mod kind;
mod lcm;
mod lms;
mod noise_schedule;
mod order;
mod overrides;
mod plan;
mod pndm;
mod prediction;
mod sigmas;
mod spacing;
mod unipc;

use std::fmt;

pub use config::{
    AlgorithmType, BetaSchedule, FinalSigmasType, SchedulerConfig, SolverType, TimestepSpacing,
    VarianceType,
};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use dpm_solver_multistep::DpmSolverMultistep;
pub use error::SchedulerError;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;
pub use kind::{SchedulerKind, build, build_with_eta};
pub use lcm::Lcm;
pub use lms::Lms;
pub use noise_schedule::NoiseSchedule;
pub use plan::Plan;
pub use pndm::Pndm;
pub use prediction::PredictionType;
pub use unipc::UniPc;

/// One denoising run, from pure noise to a clean sample.
///
/// A scheduler may remember earlier steps, so a new run needs a new scheduler. Steps are made in order; a run may start in the middle.
pub trait Scheduler: Send + fmt::Debug {
    /// The tables of the run.
    fn plan(&self) -> &Plan;

    /// Makes one step: replaces `sample` by the less noisy one that `model_output` leads to. `noise` fills a slice of the sample's length with unit
    /// normal noise and is called only by steps that are random.
    ///
    /// # Errors
    /// There is no such step, it does not follow the one before, or the slices differ in length. The sample is then unchanged.
    fn step(
        &mut self,
        model_output: &[f32],
        step_index: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError>;

    /// The timestep to give the model at each step. One step is one call of the model, so the length is the number of calls: PNDM makes one more than asked for,
    /// Heun nearly twice as many, and timesteps may repeat or be fractional.
    fn timesteps(&self) -> &[f64] {
        self.plan().timesteps()
    }

    /// Calls of the model that a step takes in the middle of a run: 2 for Heun. A run that leaves out its first `n` steps starts at index `n * order`.
    fn order(&self) -> usize {
        1
    }

    /// The standard deviation of the noise that a run starts from.
    fn init_noise_sigma(&self) -> f64 {
        self.plan().init_noise_sigma()
    }

    /// The noisy sample that a run over a clean one starts from at this step, given unit normal noise: image to image.
    ///
    /// # Errors
    /// There is no such step, or the slices differ in length.
    fn add_noise(
        &self,
        clean: &[f32],
        noise: &[f32],
        step_index: usize,
    ) -> Result<Vec<f32>, SchedulerError> {
        self.plan().add_noise(clean, noise, step_index)
    }

    /// Scales the sample, in place, to the variance that the model expects at this step.
    ///
    /// # Errors
    /// There is no such step.
    fn scale_model_input(
        &self,
        sample: &mut [f32],
        step_index: usize,
    ) -> Result<(), SchedulerError> {
        self.plan().scale_model_input(sample, step_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheduler_refuses_calls_that_make_no_sense() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for kind in SchedulerKind::ALL {
            let none = &mut |noise: &mut [f32]| noise.fill(0.0);
            let mut scheduler = build(kind, &config, 4).unwrap();
            let calls = scheduler.timesteps().len();
            let mut sample = [0.5, -0.5];
            assert!(matches!(
                scheduler.step(&[0.0; 3], 0, &mut sample, none),
                Err(SchedulerError::Length {
                    expected: 2,
                    found: 3,
                    ..
                })
            ));
            assert!(matches!(
                scheduler.step(&[0.0; 2], calls, &mut sample, none),
                Err(SchedulerError::StepIndex { .. })
            ));
            assert!(scheduler.scale_model_input(&mut sample, calls).is_err());
            assert_eq!(sample, [0.5, -0.5], "{kind}");
            // A run may start in the middle, but not jump or repeat.
            scheduler.step(&[0.1; 2], 1, &mut sample, none).unwrap();
            for wrong in [0, 1, 3] {
                let error = scheduler
                    .step(&[0.1; 2], wrong, &mut sample, none)
                    .unwrap_err();
                assert!(
                    matches!(error, SchedulerError::StepOrder { previous: 1, .. }),
                    "{kind}: {error}"
                );
            }
            scheduler.step(&[0.1; 2], 2, &mut sample, none).unwrap();
            assert!(build(kind, &config, 0).is_err());
        }
    }

    #[test]
    fn a_sample_of_another_size_is_refused_in_the_middle_of_a_run() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for kind in SchedulerKind::ALL {
            let none = &mut |noise: &mut [f32]| noise.fill(0.0);
            let mut scheduler = build(kind, &config, 4).unwrap();
            scheduler.step(&[0.1; 2], 0, &mut [0.5; 2], none).unwrap();
            let error = scheduler.step(&[0.1; 3], 1, &mut [0.5; 3], none);
            let error = error.unwrap_err();
            assert!(
                matches!(
                    error,
                    SchedulerError::Length {
                        expected: 2,
                        found: 3,
                        ..
                    }
                ),
                "{kind}: {error}"
            );
        }
    }

    #[test]
    fn a_true_prediction_of_the_noise_gives_back_the_clean_sample() {
        let config = SchedulerConfig {
            set_alpha_to_one: Some(true),
            ..SchedulerConfig::stable_diffusion(PredictionType::Epsilon)
        };
        let (clean, noise) = (0.3_f32, -1.5_f32);
        for kind in SchedulerKind::ALL {
            // The random ones are at a loss: they draw noise that this model knows nothing of.
            if let SchedulerKind::Ddpm
            | SchedulerKind::EulerAncestral
            | SchedulerKind::Dpmpp2mSde
            | SchedulerKind::Lcm = kind
            {
                continue;
            }
            let mut scheduler = build(kind, &config, 7).unwrap();
            let first = scheduler.timesteps()[0] as usize;
            let schedule = NoiseSchedule::new(&config).unwrap();
            let mut sample = match scheduler.init_noise_sigma() {
                1.0 => schedule.add_noise(&[clean], &[noise], first).unwrap(),
                sigma => vec![clean + sigma as f32 * noise],
            };
            for index in 0..scheduler.timesteps().len() {
                scheduler
                    .step(&[noise], index, &mut sample, &mut |_| panic!("not random"))
                    .unwrap();
            }
            assert!((sample[0] - clean).abs() < 1e-4, "{kind}: {sample:?}");
        }
    }
}
