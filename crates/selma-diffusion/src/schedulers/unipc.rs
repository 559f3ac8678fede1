//! UniPC, multistep: arXiv 2302.04867, `scheduling_unipc_multistep.py`.

use super::arithmetic::{remember, weighted};
use super::error::only;
use super::order::{StepOrder, entry};
use super::sigmas::{Curve, Spread, factors, final_sigma};
use super::spacing::solver_timesteps;
use super::{
    NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError, SolverType,
};

/// UniPC: a predictor over the last predictions of the clean sample, and a corrector that repeats the step before once the model has seen where it led.
#[derive(Debug, Clone)]
pub struct UniPc {
    prediction: PredictionType,
    plan: Plan,
    solver: SolverType,
    solver_order: usize,
    lower_order_final: bool,
    /// Steps whose result is not corrected.
    uncorrected: Vec<usize>,
    order: StepOrder,
    /// The last predictions of the clean sample, newest first, at most `solver_order`.
    outputs: Vec<Vec<f32>>,
    /// The sample that the step before started from, and that step's order.
    previous: Option<(Vec<f32>, usize)>,
}

impl UniPc {
    /// UniPC for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        only(
            "unipc",
            &[
                ("thresholding", config.thresholding, false),
                ("use_flow_sigmas", config.use_flow_sigmas, false),
                ("predict_x0", config.predict_x0, true),
            ],
        )?;
        if let Some(solver) = &config.solver_p {
            return Err(SchedulerError::Unsupported {
                scheduler: "unipc",
                field: "solver_p",
                found: solver.to_string(),
            });
        }
        let spread = Spread::from_config("unipc", config)?;
        let training = NoiseSchedule::with_finite_sigmas(config)?.sigmas();
        let timesteps = solver_timesteps(config, training.len(), num_inference_steps)?;
        let rounded = spread.is_some_and(|spread| spread.curve == Curve::Karras);
        let smallest = spread.and_then(|spread| spread.min);
        let last = final_sigma(config, smallest.map_or_else(|| entry(&training, 0), Ok)?);
        Ok(Self {
            prediction: config.prediction_type(),
            plan: Plan::variance_preserving(&timesteps, &training, spread, rounded, last)?,
            solver: config.solver_type.unwrap_or(SolverType::Bh2),
            solver_order: config.solver_order()?,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            uncorrected: config.disable_corrector.clone().unwrap_or_default(),
            order: StepOrder::default(),
            outputs: Vec::new(),
            previous: None,
        })
    }

    /// The sample after step `index`: predicted from the outputs so far, the newest of them that step's own, or corrected by the output `after` it.
    fn moved(
        &self,
        index: usize,
        order: usize,
        sample: &[f32],
        after: Option<&[f32]>,
    ) -> Result<Vec<f32>, SchedulerError> {
        let (sigma, next) = self.plan.sigma_pair(index)?;
        let (_, spread) = factors(sigma);
        let (next_signal, next_spread) = factors(next);
        // The log-SNR that the step covers; infinite where it ends without noise.
        let h = sigma.ln() - next.ln();
        let decay = (-h).exp_m1();
        let base = match self.solver {
            SolverType::Bh1 => -h,
            _ => decay,
        };

        // Where the other outputs lie, in units of the step.
        let mut nodes = Vec::with_capacity(order);
        for back in 1..order {
            nodes.push((sigma.ln() - entry(self.plan.sigmas(), index - back)?.ln()) / h);
        }
        if after.is_some() {
            nodes.push(1.0);
        }
        // The paper's choice for a single node: exact weights would gain nothing.
        let shares = match (order, after.is_some()) {
            (1, true) | (2, false) => vec![0.5],
            _ => shares(&nodes, &moments(-h, base, nodes.len())),
        };
        let others = self.outputs.iter().skip(1).take(order - 1);
        let others = others.map(Vec::as_slice).chain(after);
        let mut own = -next_signal * decay;
        let mut terms = vec![(next_spread / spread, sample)];
        for ((node, share), output) in nodes.iter().zip(shares).zip(others) {
            let weight = -next_signal * base * share / node;
            own -= weight;
            terms.push((weight, output));
        }
        if let Some(output) = self.outputs.first() {
            terms.push((own, output));
        }
        Ok(weighted(&terms))
    }
}

impl Scheduler for UniPc {
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
        let newest = self.prediction.clean_sample(model_output, sample, sigma);

        let start = match &self.previous {
            Some((before, order)) if !self.uncorrected.contains(&(step_index - 1)) => {
                self.moved(step_index - 1, *order, before, Some(&newest))?
            }
            _ => sample.to_vec(),
        };
        remember(&mut self.outputs, newest, self.solver_order);
        let remaining = self.plan.timesteps().len() - step_index;
        let limit = if next == 0.0 {
            // Only the first order has a limit where no noise is left.
            1
        } else if self.lower_order_final {
            remaining
        } else {
            self.solver_order
        };
        let order = limit.min(self.outputs.len());
        let moved = self.moved(step_index, order, &start, None)?;
        sample.copy_from_slice(&moved);
        self.previous = Some((start, order));
        Ok(())
    }
}

/// The right-hand side of the paper's linear system: the moments of the exponential integrator over a step of `hh`, over `base`.
fn moments(hh: f64, base: f64, count: usize) -> Vec<f64> {
    let (mut phi, mut factorial) = (hh.exp_m1() / hh - 1.0, 1.0);
    (1..=count)
        .map(|i| {
            let moment = phi * factorial / base;
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
            moment
        })
        .collect()
}

/// The weights of values at the nodes that reproduce the moments: `sum_k share_k node_k^i = moment_i`. As a sum over a node's Lagrange polynomial this needs no
/// elimination.
fn shares(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let share = |(k, node): (usize, &f64)| -> f64 {
        let mut polynomial = vec![1.0];
        for (_, other) in nodes.iter().enumerate().filter(|(j, _)| *j != k) {
            let raised = std::iter::once(&0.0).chain(&polynomial);
            let constant = polynomial.iter().chain(std::iter::once(&0.0));
            polynomial = raised
                .zip(constant)
                .map(|(raised, same)| (raised - other * same) / (node - other))
                .collect();
        }
        polynomial.iter().zip(moments).map(|(c, m)| c * m).sum()
    };
    nodes.iter().enumerate().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_reproduce_the_moments() {
        let (nodes, moments) = ([-2.5, -1.0, 1.0], [0.3, -0.7, 1.1]);
        let shares = shares(&nodes, &moments);
        for (power, moment) in (0..).zip(moments) {
            let sum: f64 = nodes
                .iter()
                .zip(&shares)
                .map(|(node, share)| share * f64::powi(*node, power))
                .sum();
            assert!((sum - moment).abs() < 1e-12, "{power}: {sum}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let base = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for (config, field) in [
            (
                SchedulerConfig {
                    predict_x0: Some(false),
                    ..base.clone()
                },
                "predict_x0",
            ),
            (
                SchedulerConfig {
                    use_flow_sigmas: Some(true),
                    ..base.clone()
                },
                "use_flow_sigmas",
            ),
            (
                SchedulerConfig {
                    solver_order: Some(4),
                    ..base
                },
                "solver_order",
            ),
        ] {
            let error = UniPc::new(&config, 10).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
