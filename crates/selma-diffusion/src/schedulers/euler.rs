//! Euler's method on the probability flow: arXiv 2206.00364, `scheduling_euler_discrete.py`.

use super::error::only;
use super::order::{StepOrder, entry};
use super::sigmas::{Spread, final_sigma};
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// Euler's method. The sample is `x_0 + sigma * noise`, so a run starts from noise of a large deviation and the model's input is scaled.
#[derive(Debug, Clone)]
pub struct Euler {
    prediction: PredictionType,
    plan: Plan,
    order: StepOrder,
}

impl Euler {
    /// Euler for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let (interpolation, timestep) = (&config.interpolation_type, &config.timestep_type);
        only(
            "euler",
            &[
                ("interpolation_type", interpolation.as_deref(), "linear"),
                ("timestep_type", timestep.as_deref(), "discrete"),
            ],
        )?;
        let spread = Spread::from_config("euler", config)?;
        let training = NoiseSchedule::with_finite_sigmas(config)?.sigmas();
        let last = final_sigma(config, entry(&training, 0)?);
        Ok(Self {
            prediction: config.prediction_type(),
            plan: Plan::variance_exploding(config, &training, spread, last, num_inference_steps)?,
            order: StepOrder::default(),
        })
    }
}

impl Scheduler for Euler {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn step(
        &mut self,
        model_output: &[f32],
        step_index: usize,
        sample: &mut [f32],
        _noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.order
            .advance(&self.plan, step_index, model_output, sample)?;
        let (sigma, next) = self.plan.sigma_pair(step_index)?;
        for (x, output) in sample.iter_mut().zip(model_output) {
            let slope = self.prediction.slope(*output, *x, sigma);
            *x = (f64::from(*x) + slope * (next - sigma)) as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_implemented_are_refused_by_name() {
        let base = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for (config, field) in [
            (
                SchedulerConfig {
                    interpolation_type: Some("log_linear".into()),
                    ..base.clone()
                },
                "interpolation_type",
            ),
            (
                SchedulerConfig {
                    timestep_type: Some("continuous".into()),
                    ..base
                },
                "timestep_type",
            ),
        ] {
            let error = Euler::new(&config, 10).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
