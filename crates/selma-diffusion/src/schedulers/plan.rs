//! What a run does at each step, known before it starts.

use super::arithmetic::weighted;
use super::error::same_length;
use super::order::{check_index, entry};
use super::sigmas::{Spread, factors, interpolate, position};
use super::spacing::timesteps;
use super::{NoiseSchedule, SchedulerConfig, SchedulerError, TimestepSpacing};

/// The tables of a run: its timesteps and, for schedulers that work with them, the sigmas.
#[derive(Debug, Clone)]
pub struct Plan {
    timesteps: Vec<f64>,
    /// One for each step and the one after the last, rounded to f32 as diffusers stores them; or none.
    sigmas: Vec<f64>,
    /// The share of the variance that is signal at each step, where there are no sigmas.
    alphas: Vec<f64>,
    init_noise_sigma: f64,
    /// Whether the sample is `x_0 + sigma * noise`, which the model's input is scaled down from.
    scales_input: bool,
}

impl Plan {
    /// A run over these training timesteps of a schedule, without sigmas, from unit normal noise.
    ///
    /// # Errors
    /// [`SchedulerError::Timestep`] for a timestep that the schedule does not have.
    pub fn over(schedule: &NoiseSchedule, timesteps: &[i64]) -> Result<Self, SchedulerError> {
        let outside = |t: i64| SchedulerError::Timestep {
            timestep: t,
            len: schedule.alphas_cumprod().len(),
        };
        let alpha = |t: &i64| {
            let index = usize::try_from(*t).map_err(|_| outside(*t))?;
            schedule.alpha_cumprod(index)
        };
        Ok(Self {
            alphas: timesteps.iter().map(alpha).collect::<Result<_, _>>()?,
            ..Self::at(timesteps)
        })
    }

    /// The timestep to give the model at each step.
    #[must_use]
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The sigma of each step and the one after the last, `[steps + 1]`; empty where the scheduler does not work with them.
    #[must_use]
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// The standard deviation of the noise that a run starts from.
    #[must_use]
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// Scales the sample, in place, to the variance that the model expects at a step.
    ///
    /// # Errors
    /// There is no such step.
    pub fn scale_model_input(
        &self,
        sample: &mut [f32],
        step_index: usize,
    ) -> Result<(), SchedulerError> {
        check_index(step_index, self.timesteps.len())?;
        if self.scales_input {
            let sigma = entry(&self.sigmas, step_index)?;
            let factor = 1.0 / (sigma * sigma + 1.0).sqrt();
            for x in sample {
                *x = (factor * f64::from(*x)) as f32;
            }
        }
        Ok(())
    }

    /// The noisy sample that a run may start from at a step: `clean` with as much of the unit normal `noise` as the sample has there.
    ///
    /// # Errors
    /// There is no such step, or the slices differ in length.
    pub fn add_noise(
        &self,
        clean: &[f32],
        noise: &[f32],
        step_index: usize,
    ) -> Result<Vec<f32>, SchedulerError> {
        check_index(step_index, self.timesteps.len())?;
        same_length("noise", clean.len(), noise.len())?;
        let (signal, spread) = if self.sigmas.is_empty() {
            let alpha = entry(&self.alphas, step_index)?;
            (alpha.sqrt(), (1.0 - alpha).sqrt())
        } else {
            let sigma = entry(&self.sigmas, step_index)?;
            if self.scales_input {
                (1.0, sigma)
            } else {
                factors(sigma)
            }
        };
        Ok(weighted(&[(signal, clean), (spread, noise)]))
    }

    /// A run over integer timesteps whose other tables are still empty.
    fn at(timesteps: &[i64]) -> Self {
        Self {
            timesteps: timesteps.iter().map(|t| *t as f64).collect(),
            sigmas: Vec::new(),
            alphas: Vec::new(),
            init_noise_sigma: 1.0,
            scales_input: false,
        }
    }

    /// A run of samples `x_0 + sigma * noise` (Euler's method and its relatives). `training` is the sigma of every training timestep, `last` the one that the
    /// run ends at.
    pub(super) fn variance_exploding(
        config: &SchedulerConfig,
        training: &[f64],
        spread: Option<Spread>,
        last: f64,
        steps: usize,
    ) -> Result<Self, SchedulerError> {
        let default = TimestepSpacing::Linspace;
        let mut timesteps = timesteps(config, default, steps)?;
        timesteps.iter_mut().for_each(|t| *t = round(*t));
        let mut sigmas: Vec<f64> = timesteps
            .iter()
            .map(|t| interpolate(training, *t))
            .collect();
        if let (Some(spread), Some(first), Some(last)) = (spread, sigmas.first(), sigmas.last()) {
            sigmas = spread.sigmas(*first, *last, sigmas.len())?;
            timesteps = timesteps_of(&sigmas, training);
            timesteps.iter_mut().for_each(|t| *t = round(*t));
        }
        sigmas.push(last);
        sigmas.iter_mut().for_each(|sigma| *sigma = round(*sigma));
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match config.timestep_spacing.unwrap_or(default) {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        };
        Ok(Self {
            timesteps,
            sigmas,
            alphas: Vec::new(),
            init_noise_sigma,
            scales_input: true,
        })
    }

    /// A run of samples of unit variance (the solvers in the log-SNR) over these timesteps, or over as many that hold the sigmas of a spread. A spread spans the
    /// whole training schedule, and its timesteps are cut to integers, by rounding where `rounded`.
    ///
    /// # Errors
    /// The spread has its ends the wrong way round.
    pub(super) fn variance_preserving(
        timesteps: &[i64],
        training: &[f64],
        spread: Option<Spread>,
        rounded: bool,
        last: f64,
    ) -> Result<Self, SchedulerError> {
        let mut plan = Self::at(timesteps);
        plan.sigmas = match (spread, training.last(), training.first()) {
            (Some(spread), Some(largest), Some(smallest)) => {
                let sigmas = spread.sigmas(*largest, *smallest, timesteps.len())?;
                let cut = if rounded {
                    f64::round_ties_even
                } else {
                    f64::trunc
                };
                plan.timesteps = timesteps_of(&sigmas, training)
                    .into_iter()
                    .map(cut)
                    .collect();
                sigmas
            }
            _ => plan
                .timesteps
                .iter()
                .map(|t| interpolate(training, *t))
                .collect(),
        };
        plan.sigmas.push(last);
        plan.sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = round(*sigma));
        Ok(plan)
    }

    /// The same run with every step but the first taken twice: Heun's method.
    pub(super) fn doubled(mut self) -> Self {
        let twice = |values: &[f64], once_at_the_end: usize| -> Vec<f64> {
            let end = values.len().saturating_sub(once_at_the_end);
            let repeats = |(i, value): (usize, &f64)| {
                let count = if i == 0 || i >= end { 1 } else { 2 };
                std::iter::repeat_n(*value, count)
            };
            values.iter().enumerate().flat_map(repeats).collect()
        };
        self.timesteps = twice(&self.timesteps, 0);
        self.sigmas = twice(&self.sigmas, 1);
        self
    }

    /// The sigmas before and after a step.
    pub(super) fn sigma_pair(&self, step_index: usize) -> Result<(f64, f64), SchedulerError> {
        Ok((
            entry(&self.sigmas, step_index)?,
            entry(&self.sigmas, step_index + 1)?,
        ))
    }
}

/// Fractional training timesteps that hold these sigmas.
fn timesteps_of(sigmas: &[f64], training: &[f64]) -> Vec<f64> {
    // diffusers keeps the logarithms in f32: where timesteps are cut to integers, the last bit can decide.
    let logarithms: Vec<f64> = training.iter().map(|sigma| round(sigma.ln())).collect();
    sigmas
        .iter()
        .map(|sigma| position(&logarithms, *sigma))
        .collect()
}

/// The nearest f32: diffusers keeps timesteps and sigmas in f32.
fn round(value: f64) -> f64 {
    f64::from(value as f32)
}
