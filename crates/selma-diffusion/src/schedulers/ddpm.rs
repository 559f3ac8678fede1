//! Denoising diffusion probabilistic models: arXiv 2006.11239, `scheduling_ddpm.py`.

use super::arithmetic::{add_noise, clipped};
use super::error::only;
use super::order::{StepOrder, entry};
use super::spacing::integer_timesteps;
use super::{
    NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError, VarianceType,
};

/// Keeps the logarithm of the variance finite at the last step.
const MIN_VARIANCE: f64 = 1e-20;

/// Ancestral sampling: every step removes predicted noise and adds fresh noise.
#[derive(Debug, Clone)]
pub struct Ddpm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    clip: Option<f64>,
    variance: VarianceType,
    steps: Vec<i64>,
    plan: Plan,
    order: StepOrder,
}

impl Ddpm {
    /// DDPM for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        only("ddpm", &[("thresholding", config.thresholding, false)])?;
        let variance = config.variance_type.unwrap_or(VarianceType::FixedSmall);
        if let VarianceType::FixedLargeLog | VarianceType::Learned | VarianceType::LearnedRange =
            variance
        {
            return Err(SchedulerError::Unsupported {
                scheduler: "ddpm",
                field: "variance_type",
                found: format!("{variance:?}"),
            });
        }
        let schedule = NoiseSchedule::new(config)?;
        let steps = integer_timesteps(config, num_inference_steps)?;
        Ok(Self {
            plan: Plan::over(&schedule, &steps)?,
            schedule,
            prediction: config.prediction_type(),
            clip: config.clip_range(true)?,
            variance,
            steps,
            order: StepOrder::default(),
        })
    }
}

impl Scheduler for Ddpm {
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
        let next = self.steps.get(step_index + 1).copied().unwrap_or(-1);
        let alpha = self.schedule.alpha_or(t, 1.0)?;
        let alpha_next = self.schedule.alpha_or(next, 1.0)?;
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let step_alpha = alpha / alpha_next;
        let step_beta = 1.0 - step_alpha;

        // Formula 7: the mean of the posterior.
        let clean_factor = alpha_next.sqrt() * step_beta / (1.0 - alpha);
        let sample_factor = step_alpha.sqrt() * (1.0 - alpha_next) / (1.0 - alpha);
        for (x, output) in sample.iter_mut().zip(model_output) {
            let parts = self.prediction.parts(*output, *x, signal, spread);
            let clean = clipped(parts.clean, self.clip);
            *x = (clean_factor * clean + sample_factor * f64::from(*x)) as f32;
        }

        // diffusers asks whether the timestep is zero, not whether the step is the last: with an offset the last step draws noise too.
        if t > 0 {
            let variance = match self.variance {
                VarianceType::FixedLarge => step_beta,
                _ => ((1.0 - alpha_next) / (1.0 - alpha) * step_beta).max(MIN_VARIANCE),
            };
            add_noise(sample, variance.sqrt(), noise);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_variances_are_refused() {
        let config = SchedulerConfig {
            variance_type: Some(VarianceType::LearnedRange),
            ..SchedulerConfig::default()
        };
        let error = Ddpm::new(&config, 10).unwrap_err();
        assert!(error.to_string().contains("variance_type"), "{error}");
    }
}
