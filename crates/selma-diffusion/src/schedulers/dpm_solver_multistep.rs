//! DPM-Solver++, multistep: arXiv 2211.01095, `scheduling_dpmsolver_multistep.py`.

use super::arithmetic::{add_noise, remember, weighted};
use super::error::only;
use super::order::{StepOrder, entry};
use super::sigmas::{Curve, Spread, factors, final_sigma};
use super::spacing::solver_timesteps;
use super::{
    AlgorithmType, BetaSchedule, FinalSigmasType, NoiseSchedule, Plan, PredictionType, Scheduler,
    SchedulerConfig, SchedulerError, SolverType, VarianceType,
};

/// Runs shorter than this end with steps of lower order.
const SHORT_RUN: usize = 15;

/// DPM-Solver++: the last predictions of the clean sample, as a polynomial of the log-SNR, are integrated over the step. Of second order unless `solver_order`
/// says otherwise (2M), deterministic or with fresh noise (`sde-dpmsolver++`).
#[derive(Debug, Clone)]
pub struct DpmSolverMultistep {
    prediction: PredictionType,
    plan: Plan,
    stochastic: bool,
    solver: SolverType,
    solver_order: usize,
    lower_order_final: bool,
    /// Whether the last step is of first order however long the run.
    euler_at_final: bool,
    order: StepOrder,
    /// The last predictions of the clean sample, newest first, at most `solver_order`.
    outputs: Vec<Vec<f32>>,
}

impl DpmSolverMultistep {
    /// DPM-Solver++ for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let unsupported = |field, found| SchedulerError::Unsupported {
            scheduler: "dpmpp_2m",
            field,
            found,
        };
        only(
            "dpmpp_2m",
            &[
                ("thresholding", config.thresholding, false),
                ("use_lu_lambdas", config.use_lu_lambdas, false),
                ("use_flow_sigmas", config.use_flow_sigmas, false),
            ],
        )?;
        if let Some(variance @ (VarianceType::Learned | VarianceType::LearnedRange)) =
            config.variance_type
        {
            return Err(unsupported("variance_type", format!("{variance:?}")));
        }
        let stochastic = match config
            .algorithm_type
            .unwrap_or(AlgorithmType::DpmSolverPlusPlus)
        {
            AlgorithmType::DpmSolverPlusPlus | AlgorithmType::Deis => false,
            AlgorithmType::SdeDpmSolverPlusPlus => true,
            other => return Err(unsupported("algorithm_type", format!("{other:?}"))),
        };
        let solver_order = config.solver_order()?;
        if stochastic && solver_order > 2 {
            return Err(unsupported("solver_order", solver_order.to_string()));
        }

        let spread = Spread::from_config("dpmpp_2m", config)?;
        let training = NoiseSchedule::with_finite_sigmas(config)?.sigmas();
        // Timesteps of a log-SNR below the bound are left out.
        let lambda_min = config.lambda_min_clipped.unwrap_or(f64::NEG_INFINITY);
        let kept = training
            .iter()
            .filter(|sigma| -sigma.ln() >= lambda_min)
            .count();
        let timesteps = solver_timesteps(config, kept, num_inference_steps)?;
        let rounded = spread.is_some_and(|spread| spread.curve == Curve::Karras)
            && config.beta_schedule != Some(BetaSchedule::SquaredcosCapV2);
        let last = final_sigma(config, entry(&training, 0)?);
        Ok(Self {
            prediction: config.prediction_type(),
            plan: Plan::variance_preserving(&timesteps, &training, spread, rounded, last)?,
            stochastic,
            solver: config.solver_type.unwrap_or(SolverType::Midpoint),
            solver_order,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final.unwrap_or(false)
                || config.final_sigmas_type != Some(FinalSigmasType::SigmaMin),
            order: StepOrder::default(),
            outputs: Vec::new(),
        })
    }

    /// The order of a step: what the memory allows, and less towards the end of a short run.
    fn order_of(&self, step_index: usize) -> usize {
        let len = self.plan.timesteps().len();
        let short = self.lower_order_final && len < SHORT_RUN;
        let limit = match len - step_index {
            1 if short || self.euler_at_final => 1,
            2 if short => 2,
            _ => self.solver_order,
        };
        limit.min(self.outputs.len())
    }
}

impl Scheduler for DpmSolverMultistep {
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
        let (_, spread) = factors(sigma);
        let (next_signal, next_spread) = factors(next);
        let newest = self.prediction.clean_sample(model_output, sample, sigma);
        remember(&mut self.outputs, newest, self.solver_order);

        // The log-SNR that the step covers; infinite where it ends without noise. With noise the exponents count twice.
        let h = sigma.ln() - next.ln();
        let exponent = if self.stochastic { 2.0 * h } else { h };
        let decay = (-exponent).exp_m1();
        let order = self.order_of(step_index);
        let log_sigma = |back: usize| entry(self.plan.sigmas(), step_index - back).map(f64::ln);

        // The factors of the first and of the second difference quotient of the predictions.
        let (mut first, mut second) = (0.0, 0.0);
        if order == 2 {
            let r0 = (log_sigma(1)? - log_sigma(0)?) / h;
            first = match self.solver {
                SolverType::Heun => next_signal * (decay / exponent + 1.0),
                _ => -0.5 * next_signal * decay,
            } / r0;
        } else if order == 3 {
            let r0 = (log_sigma(1)? - log_sigma(0)?) / h;
            let r1 = (log_sigma(2)? - log_sigma(1)?) / h;
            let slope = next_signal * (decay / h + 1.0);
            let bend = -next_signal * ((decay + h) / (h * h) - 0.5);
            second = -(slope * r0 + bend) / (r0 + r1);
            first = (slope - second) / r0;
            second /= r1;
        }
        let shrink = if self.stochastic { (-h).exp() } else { 1.0 };
        let weights = [first - next_signal * decay, second - first, -second];
        let mut terms = vec![(next_spread / spread * shrink, &*sample)];
        for (weight, output) in weights.iter().zip(&self.outputs).take(order) {
            terms.push((*weight, output));
        }
        let moved = weighted(&terms);
        sample.copy_from_slice(&moved);
        if self.stochastic {
            add_noise(sample, next_spread * (-decay).sqrt(), noise);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let base = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for (config, field) in [
            (
                SchedulerConfig {
                    algorithm_type: Some(AlgorithmType::DpmSolver),
                    ..base.clone()
                },
                "algorithm_type",
            ),
            (
                SchedulerConfig {
                    algorithm_type: Some(AlgorithmType::SdeDpmSolverPlusPlus),
                    solver_order: Some(3),
                    ..base.clone()
                },
                "solver_order",
            ),
            (
                SchedulerConfig {
                    solver_order: Some(0),
                    ..base.clone()
                },
                "solver_order",
            ),
            (
                SchedulerConfig {
                    thresholding: Some(true),
                    ..base
                },
                "thresholding",
            ),
        ] {
            let error = DpmSolverMultistep::new(&config, 10).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
