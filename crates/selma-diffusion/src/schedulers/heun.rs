//! Heun's method on the probability flow: arXiv 2206.00364, algorithm 1 without churn, `scheduling_heun_discrete.py`.

use super::arithmetic::clipped;
use super::order::StepOrder;
use super::sigmas::Spread;
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// Heun's method: a step of Euler's, then the same step with the mean of the slopes at both of its ends. A run of S steps makes 2 S - 1 calls, the last of
/// them a step of Euler's. Samples are `x_0 + sigma * noise`, as in [`Euler`](super::Euler).
///
/// A run that starts at an odd index lacks the first half of its step: that call leaves the sample as it is, and the next one starts from the same sigma.
/// As in diffusers `rescale_betas_zero_snr` and `final_sigmas_type` are not asked.
#[derive(Debug, Clone)]
pub struct Heun {
    prediction: PredictionType,
    clip: Option<f64>,
    plan: Plan,
    order: StepOrder,
    /// The sample that the current step starts from, and its slope there.
    origin: Option<(Vec<f32>, Vec<f64>)>,
}

impl Heun {
    /// Heun for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let config = &config.clone().with_default_betas(0.00085, 0.012, None);
        let spread = Spread::from_config("heun", config)?;
        let training = NoiseSchedule::without_rescaling(config)?.sigmas();
        let plan = Plan::variance_exploding(config, &training, spread, 0.0, num_inference_steps)?;
        Ok(Self {
            prediction: config.prediction_type(),
            clip: config.clip_range(false)?,
            plan: plan.doubled(),
            order: StepOrder::default(),
            origin: None,
        })
    }

    fn slopes(&self, model_output: &[f32], sample: &[f32], sigma: f64) -> Vec<f64> {
        let slope = |(x, output): (&f32, &f32)| {
            let clean = self.prediction.clean(*output, *x, sigma);
            (f64::from(*x) - clipped(clean, self.clip)) / sigma
        };
        sample.iter().zip(model_output).map(slope).collect()
    }
}

impl Scheduler for Heun {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn order(&self) -> usize {
        2
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
        let slopes = self.slopes(model_output, sample, sigma);
        if step_index.is_multiple_of(2) {
            let origin = sample.to_vec();
            for (x, slope) in sample.iter_mut().zip(&slopes) {
                *x = (f64::from(*x) + slope * (next - sigma)) as f32;
            }
            self.origin = Some((origin, slopes));
        } else if let Some((origin, first)) = self.origin.take() {
            let (before, _) = self.plan.sigma_pair(step_index - 1)?;
            for (x, ((start, first), second)) in sample
                .iter_mut()
                .zip(origin.iter().zip(&first).zip(&slopes))
            {
                let slope = (first + second) / 2.0;
                *x = (f64::from(*start) + slope * (sigma - before)) as f32;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_timesteps_but_the_first_are_visited_twice() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let heun = Heun::new(&config, 4).unwrap();
        assert_eq!(
            heun.timesteps(),
            [999.0, 666.0, 666.0, 333.0, 333.0, 0.0, 0.0]
        );
        assert_eq!(heun.plan().sigmas().len(), 8);
        assert_eq!(Heun::new(&config, 1).unwrap().timesteps(), [0.0]);
    }

    #[test]
    fn a_run_that_starts_between_two_calls_loses_nothing() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let run = |start: usize| {
            let mut heun = Heun::new(&config, 4).unwrap();
            let mut sample = [3.0_f32];
            for index in start..7 {
                let output = [sample[0].tanh()];
                heun.step(&output, index, &mut sample, &mut |_| ()).unwrap();
            }
            sample
        };
        assert_eq!(run(3), run(4));
        assert_ne!(run(2), run(4));
    }
}
