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

mod betas;
mod config;
mod ddim;
mod ddpm;
mod error;
mod euler;
mod noise_schedule;
mod order;
mod pndm;
mod prediction;
mod spacing;

use std::fmt;
use std::str::FromStr;

pub use config::{BetaSchedule, FinalSigmasType, SchedulerConfig, TimestepSpacing, VarianceType};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use error::SchedulerError;
pub use euler::Euler;
pub use noise_schedule::NoiseSchedule;
pub use pndm::Pndm;
pub use prediction::PredictionType;

/// One denoising run, from pure noise to a clean sample.
///
/// A scheduler may remember earlier steps, so a new run needs a new scheduler. Steps are made in order; a run may start in the middle.
pub trait Scheduler: Send + fmt::Debug {
    /// The timestep to give the model at each step. One step is one call of the model, so the length is the number of calls: PNDM makes one more than asked for,
    /// and timesteps may repeat or be fractional.
    fn timesteps(&self) -> &[f64];

    /// The standard deviation of the noise that a run starts from.
    fn init_noise_sigma(&self) -> f64;

    /// Scales the sample, in place, to the variance that the model expects at this step.
    ///
    /// # Errors
    /// There is no such step.
    fn scale_model_input(
        &self,
        sample: &mut [f32],
        step_index: usize,
    ) -> Result<(), SchedulerError>;

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
}

/// The schedulers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerKind {
    /// [`Ddpm`]
    Ddpm,
    /// [`Ddim`]
    Ddim,
    /// [`Pndm`]
    Pndm,
    /// [`Euler`]
    Euler,
}

impl SchedulerKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Ddpm, Self::Ddim, Self::Pndm, Self::Euler];

    /// The short name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
        }
    }

    /// The class of diffusers, as in `scheduler_config.json` and `model_index.json`.
    #[must_use]
    pub const fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
        }
    }

    /// The kind that a class of diffusers is.
    ///
    /// # Errors
    /// [`SchedulerError::UnknownKind`] for any other class.
    pub fn from_class_name(name: &str) -> Result<Self, SchedulerError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.class_name() == name);
        kind.ok_or_else(|| SchedulerError::UnknownKind {
            name: name.to_owned(),
            expected: "DDPMScheduler, DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler",
        })
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = SchedulerError;

    fn from_str(name: &str) -> Result<Self, SchedulerError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| SchedulerError::UnknownKind {
            name: name.to_owned(),
            expected: "ddpm, ddim, pndm, euler",
        })
    }
}

/// A scheduler ready for a run of `num_inference_steps` steps. `kind` need not be the class that wrote the configuration.
///
/// # Errors
/// The number of steps does not fit the schedule, or a field is out of range or not supported by this kind.
pub fn build(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    Ok(match kind {
        SchedulerKind::Ddpm => Box::new(Ddpm::new(config, num_inference_steps)?),
        SchedulerKind::Ddim => Box::new(Ddim::new(config, num_inference_steps)?),
        SchedulerKind::Pndm => Box::new(Pndm::new(config, num_inference_steps)?),
        SchedulerKind::Euler => Box::new(Euler::new(config, num_inference_steps)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_kind() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
            assert_eq!(
                SchedulerKind::from_class_name(kind.class_name()).unwrap(),
                kind
            );
        }
        let error = "dddim".parse::<SchedulerKind>().unwrap_err().to_string();
        assert!(
            error.contains("dddim") && error.contains("ddpm, ddim, pndm, euler"),
            "{error}"
        );
    }

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
}
