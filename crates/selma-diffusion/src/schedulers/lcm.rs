//! Latent consistency models: arXiv 2310.04378, `scheduling_lcm.py`.

use super::arithmetic::{add_noise, clipped};
use super::error::only;
use super::order::{StepOrder, entry};
use super::spacing::check_steps;
use super::{
    BetaSchedule, NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError,
};

/// The deviation of the clean samples that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

/// LCM: every step predicts the clean sample, and all but the last add noise back. For models distilled for it, in 1 to 8 steps without guidance.
///
/// The timesteps are some of the `original_inference_steps` of the distillation; `timestep_spacing` and `steps_offset` are not asked, as in diffusers.
#[derive(Debug, Clone)]
pub struct Lcm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    clip: Option<f64>,
    timestep_scaling: f64,
    steps: Vec<i64>,
    plan: Plan,
    order: StepOrder,
}

impl Lcm {
    /// LCM for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// There are more steps than `original_inference_steps`, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let scaled = Some(BetaSchedule::ScaledLinear);
        let config = &config.clone().with_default_betas(0.00085, 0.012, scaled);
        only("lcm", &[("thresholding", config.thresholding, false)])?;
        let schedule = NoiseSchedule::new(config)?;
        let (train, original) = (
            config.num_train_timesteps(),
            config.original_inference_steps.unwrap_or(50),
        );
        if original == 0 || original > train {
            return Err(SchedulerError::InvalidField {
                field: "original_inference_steps",
                found: original.to_string(),
                expected: format!("1 to {train}, as num_train_timesteps says"),
            });
        }
        check_steps(num_inference_steps, 1, original)?;
        let stride = original as f64 / num_inference_steps as f64;
        let steps: Vec<i64> = (0..num_inference_steps)
            .map(|i| original - (i as f64 * stride).floor() as usize)
            .map(|position| (position * (train / original)) as i64 - 1)
            .collect();
        Ok(Self {
            plan: Plan::over(&schedule, &steps)?,
            schedule,
            prediction: config.prediction_type(),
            clip: config.clip_range(false)?,
            timestep_scaling: config.timestep_scaling.unwrap_or(10.0),
            steps,
            order: StepOrder::default(),
        })
    }
}

impl Scheduler for Lcm {
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
        let alpha = self.schedule.alpha_or(t, 1.0)?;
        // The last step ends at the clean sample.
        let next = self.steps.get(step_index + 1).copied().unwrap_or(-1);
        let alpha_next = self.schedule.alpha_or(next, 1.0)?;
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let scaled = t as f64 * self.timestep_scaling;
        let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / variance, scaled / variance.sqrt());
        for (x, output) in sample.iter_mut().zip(model_output) {
            let parts = self.prediction.parts(*output, *x, signal, spread);
            let clean = clipped(parts.clean, self.clip);
            let denoised = out * clean + skip * f64::from(*x);
            *x = (alpha_next.sqrt() * denoised) as f32;
        }
        add_noise(sample, (1.0 - alpha_next).sqrt(), noise);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_some_of_the_distillation() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let lcm = Lcm::new(&config, 4).unwrap();
        assert_eq!(lcm.timesteps(), [999.0, 759.0, 499.0, 259.0]);
        assert!(matches!(
            Lcm::new(&config, 51),
            Err(SchedulerError::Steps { max: 50, .. })
        ));
        let config = SchedulerConfig {
            original_inference_steps: Some(1001),
            ..config
        };
        let error = Lcm::new(&config, 4).unwrap_err();
        assert!(error.to_string().contains("original_inference_steps"));
    }
}
