//! Denoising diffusion implicit models: arXiv 2010.02502, `scheduling_ddim.py`.

use super::arithmetic::{add_noise, clipped};
use super::error::only;
use super::order::{StepOrder, entry};
use super::spacing::integer_timesteps;
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// DDIM: deterministic unless [`Ddim::with_eta`] adds noise.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    clip: Option<f64>,
    /// What `a` is where a run ends.
    final_alpha: f64,
    /// Training timesteps between two inference steps.
    ratio: i64,
    steps: Vec<i64>,
    plan: Plan,
    eta: f64,
    order: StepOrder,
}

impl Ddim {
    /// DDIM for a run of `num_inference_steps` steps, with `eta` 0.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        only("ddim", &[("thresholding", config.thresholding, false)])?;
        let schedule = NoiseSchedule::new(config)?;
        let steps = integer_timesteps(config, num_inference_steps)?;
        let final_alpha = if config.set_alpha_to_one.unwrap_or(true) {
            1.0
        } else {
            schedule.alpha_cumprod(0)?
        };
        Ok(Self {
            prediction: config.prediction_type(),
            clip: config.clip_range(true)?,
            final_alpha,
            ratio: (config.num_train_timesteps() / num_inference_steps) as i64,
            plan: Plan::over(&schedule, &steps)?,
            steps,
            schedule,
            eta: 0.0,
            order: StepOrder::default(),
        })
    }

    /// Adds noise after every step: 0 is DDIM, 1 has the variance of DDPM (formula 16).
    ///
    /// # Errors
    /// `eta` is not between 0 and 1.
    pub fn with_eta(mut self, eta: f64) -> Result<Self, SchedulerError> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(SchedulerError::InvalidField {
                field: "eta",
                found: eta.to_string(),
                expected: "0 to 1".to_owned(),
            });
        }
        self.eta = eta;
        Ok(self)
    }
}

impl Scheduler for Ddim {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn step(
        &mut self,
        model_output: &[f32],
        step_index: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.order
            .advance(&self.plan, step_index, model_output, sample)?;
        let t = entry(&self.steps, step_index)?;
        let alpha = self.schedule.alpha_or(t, self.final_alpha)?;
        let alpha_next = self.schedule.alpha_or(t - self.ratio, self.final_alpha)?;
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());

        // Formula 16, then the three terms of formula 12.
        let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
        let deviation = self.eta * variance.sqrt();
        let direction = (1.0 - alpha_next - deviation * deviation).sqrt();
        for (x, output) in sample.iter_mut().zip(model_output) {
            let parts = self.prediction.parts(*output, *x, signal, spread);
            let clean = clipped(parts.clean, self.clip);
            *x = (alpha_next.sqrt() * clean + direction * parts.noise) as f32;
        }
        add_noise(sample, deviation, noise);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused() {
        let config = SchedulerConfig {
            thresholding: Some(true),
            ..SchedulerConfig::default()
        };
        let error = Ddim::new(&config, 10).unwrap_err();
        assert!(error.to_string().contains("thresholding"), "{error}");
        for eta in [-0.1, 1.5, f64::NAN] {
            assert!(
                Ddim::new(&SchedulerConfig::default(), 10)
                    .unwrap()
                    .with_eta(eta)
                    .is_err()
            );
        }
    }
}
