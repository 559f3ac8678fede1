//! Euler's method with fresh noise after every step: k-diffusion's `sample_euler_ancestral`, `scheduling_euler_ancestral_discrete.py`.

use super::arithmetic::add_noise;
use super::order::StepOrder;
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// Euler ancestral: every step goes below its sigma and comes back up with noise. Samples are `x_0 + sigma * noise`, as in [`Euler`](super::Euler).
///
/// As in diffusers the sigmas follow the timesteps and end at zero: `use_karras_sigmas`, `use_exponential_sigmas` and `final_sigmas_type` are not asked.
#[derive(Debug, Clone)]
pub struct EulerAncestral {
    prediction: PredictionType,
    plan: Plan,
    order: StepOrder,
}

impl EulerAncestral {
    /// Euler ancestral for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let training = NoiseSchedule::with_finite_sigmas(config)?.sigmas();
        Ok(Self {
            prediction: config.prediction_type(),
            plan: Plan::variance_exploding(config, &training, None, 0.0, num_inference_steps)?,
            order: StepOrder::default(),
        })
    }
}

impl Scheduler for EulerAncestral {
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
        let (sigma, next) = self.plan.sigma_pair(step_index)?;
        // The variance that the noise brings, and what is left for the step itself: together `next^2`.
        let up = next * next * (1.0 - (next / sigma).powi(2));
        let down = (next * next - up).sqrt();
        for (x, output) in sample.iter_mut().zip(model_output) {
            let slope = self.prediction.slope(*output, *x, sigma);
            *x = (f64::from(*x) + slope * (down - sigma)) as f32;
        }
        add_noise(sample, up.sqrt(), noise);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_but_the_last_draws_noise() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let mut scheduler = EulerAncestral::new(&config, 4).unwrap();
        let (mut draws, mut sample) = (0, [0.5_f32; 3]);
        for index in 0..4 {
            scheduler
                .step(&[0.1; 3], index, &mut sample, &mut |_| draws += 1)
                .unwrap();
        }
        assert_eq!(draws, 3);
    }
}
