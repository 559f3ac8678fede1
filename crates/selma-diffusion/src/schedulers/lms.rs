//! The linear multistep method on the probability flow: k-diffusion's `sample_lms`, `scheduling_lms_discrete.py`.

use super::arithmetic::{remember, weighted};
use super::order::{StepOrder, entry};
use super::sigmas::{Curve, Spread};
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// How many slopes a step looks at.
const ORDER: usize = 4;

/// LMS: the slopes of the last four steps, as a polynomial of sigma, are integrated over the step. Samples are `x_0 + sigma * noise`, as in
/// [`Euler`](super::Euler).
///
/// As in diffusers `rescale_betas_zero_snr` and `final_sigmas_type` are not asked, and Karras sigmas span those of the timesteps whatever `sigma_min` and
/// `sigma_max` say.
#[derive(Debug, Clone)]
pub struct Lms {
    prediction: PredictionType,
    plan: Plan,
    order: StepOrder,
    /// The last slopes, newest first, at most [`ORDER`].
    slopes: Vec<Vec<f32>>,
}

impl Lms {
    /// LMS for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let mut spread = Spread::from_config("lms", config)?;
        if let Some(spread) = &mut spread
            && spread.curve == Curve::Karras
        {
            (spread.min, spread.max) = (None, None);
        }
        let training = NoiseSchedule::without_rescaling(config)?.sigmas();
        Ok(Self {
            prediction: config.prediction_type(),
            plan: Plan::variance_exploding(config, &training, spread, 0.0, num_inference_steps)?,
            order: StepOrder::default(),
            slopes: Vec::new(),
        })
    }
}

impl Scheduler for Lms {
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
        let slope = |(x, output): (&f32, &f32)| self.prediction.slope(*output, *x, sigma) as f32;
        let newest = sample.iter().zip(model_output).map(slope).collect();
        remember(&mut self.slopes, newest, ORDER);

        // A run that starts in the middle lacks the slopes before it. diffusers weights the ones there are as if none were missing.
        let mut nodes = Vec::with_capacity(ORDER);
        for back in 0..ORDER.min(step_index + 1) {
            nodes.push(entry(self.plan.sigmas(), step_index - back)?);
        }
        let mut terms = vec![(1.0, &*sample)];
        for (node, slope) in nodes.iter().zip(&self.slopes) {
            terms.push((integral(&nodes, *node, sigma, next), slope.as_slice()));
        }
        let moved = weighted(&terms);
        sample.copy_from_slice(&moved);
        Ok(())
    }
}

/// The integral, from one sigma to another, of the polynomial that is 1 at `node` and 0 at the other nodes.
fn integral(nodes: &[f64], node: f64, from: f64, until: f64) -> f64 {
    let basis = |at: f64| -> f64 {
        let others = nodes.iter().filter(|other| **other != node);
        others.map(|other| (at - other) / (node - other)).product()
    };
    // Gauss and Legendre's rule with two points is exact up to the third degree, that of four nodes.
    let (middle, half) = (f64::midpoint(from, until), (until - from) / 2.0);
    let distance = half / 3.0_f64.sqrt();
    half * (basis(middle - distance) + basis(middle + distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_the_third_degree_are_integrated_exactly() {
        let nodes = [2.0, 3.0, 5.0, 9.0];
        let cube = |x: f64| 4.0 * x.powi(3) - 2.0 * x + 1.0;
        let area = |x: f64| x.powi(4) - x * x + x;
        let sum: f64 = nodes
            .iter()
            .map(|node| cube(*node) * integral(&nodes, *node, 2.0, 0.5))
            .sum();
        assert!((sum - (area(0.5) - area(2.0))).abs() < 1e-10, "{sum}");
        assert_eq!(integral(&[2.0], 2.0, 2.0, 0.5), -1.5);
    }
}
