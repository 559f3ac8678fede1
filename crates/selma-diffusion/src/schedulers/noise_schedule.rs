//! The forward process: how much noise each training timestep holds.

use super::error::same_length;
use super::{SchedulerConfig, SchedulerError, betas};

/// The smallest positive f16: with a schedule that ends at zero signal, the first sigma would be infinite.
const SMALLEST_ALPHA: f32 = 1.0 / 16_777_216.0;

/// The forward process `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise` over the training timesteps `0..num_train_timesteps`.
///
/// The table is rounded to f32 where diffusers rounds it, and everything derived from it is computed in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// The schedule that the configuration describes, rescaled to zero terminal SNR if `rescale_betas_zero_snr` says so.
    ///
    /// # Errors
    /// A field of the schedule is out of range.
    pub fn new(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        let mut table = config.located(betas::betas(config))?;
        if config.rescale_betas_zero_snr.unwrap_or(false) {
            table = betas::rescale_zero_terminal_snr(&table);
        }
        Ok(Self {
            alphas_cumprod: betas::alphas_cumprod(&table),
        })
    }

    /// The same schedule without regard to `rescale_betas_zero_snr`, for schedulers that do not know the field.
    pub(super) fn without_rescaling(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        Ok(Self {
            alphas_cumprod: betas::alphas_cumprod(&config.located(betas::betas(config))?),
        })
    }

    /// The same schedule with a last entry above zero, for schedulers that must divide by it.
    pub(super) fn with_finite_sigmas(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        let mut schedule = Self::new(config)?;
        if config.rescale_betas_zero_snr.unwrap_or(false)
            && let Some(last) = schedule.alphas_cumprod.last_mut()
        {
            *last = SMALLEST_ALPHA;
        }
        Ok(schedule)
    }

    /// `sqrt((1 - a_t) / a_t)` of every training timestep, rounded as torch does: the deviation of the noise over the factor of the clean sample.
    pub(super) fn sigmas(&self) -> Vec<f64> {
        let sigma = |alpha: &f32| f64::from(((1.0 - alpha) / alpha).sqrt());
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// The table `a_t`, `[num_train_timesteps]`.
    #[must_use]
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// `a_t`, the share of the variance that is signal.
    ///
    /// # Errors
    /// [`SchedulerError::Timestep`] when `t` is not a training timestep.
    pub fn alpha_cumprod(&self, t: usize) -> Result<f64, SchedulerError> {
        match self.alphas_cumprod.get(t) {
            Some(alpha) => Ok(f64::from(*alpha)),
            None => Err(SchedulerError::Timestep {
                timestep: i64::try_from(t).unwrap_or(i64::MAX),
                len: self.alphas_cumprod.len(),
            }),
        }
    }

    /// `sqrt(a_t)`, the factor of the clean sample.
    ///
    /// # Errors
    /// [`SchedulerError::Timestep`] when `t` is not a training timestep.
    pub fn sqrt_alpha(&self, t: usize) -> Result<f64, SchedulerError> {
        Ok(self.alpha_cumprod(t)?.sqrt())
    }

    /// `sqrt(1 - a_t)`, the factor of the noise.
    ///
    /// # Errors
    /// [`SchedulerError::Timestep`] when `t` is not a training timestep.
    pub fn sqrt_one_minus_alpha(&self, t: usize) -> Result<f64, SchedulerError> {
        Ok((1.0 - self.alpha_cumprod(t)?).sqrt())
    }

    /// The signal-to-noise ratio `a_t / (1 - a_t)` that min-SNR weighting takes (arXiv 2303.09556).
    ///
    /// # Errors
    /// [`SchedulerError::Timestep`] when `t` is not a training timestep.
    pub fn snr(&self, t: usize) -> Result<f64, SchedulerError> {
        let alpha = self.alpha_cumprod(t)?;
        Ok(alpha / (1.0 - alpha))
    }

    /// The noisy sample `sqrt(a_t) clean + sqrt(1 - a_t) noise`, of the length of its arguments.
    ///
    /// # Errors
    /// `t` is not a training timestep, or the slices differ in length.
    pub fn add_noise(
        &self,
        clean: &[f32],
        noise: &[f32],
        t: usize,
    ) -> Result<Vec<f32>, SchedulerError> {
        mix(
            clean,
            self.sqrt_alpha(t)?,
            noise,
            self.sqrt_one_minus_alpha(t)?,
        )
    }

    /// The velocity `sqrt(a_t) noise - sqrt(1 - a_t) clean`, the target of v prediction (arXiv 2202.00512, appendix D).
    ///
    /// # Errors
    /// `t` is not a training timestep, or the slices differ in length.
    pub fn velocity(
        &self,
        clean: &[f32],
        noise: &[f32],
        t: usize,
    ) -> Result<Vec<f32>, SchedulerError> {
        mix(
            clean,
            -self.sqrt_one_minus_alpha(t)?,
            noise,
            self.sqrt_alpha(t)?,
        )
    }

    /// `a_t` for a timestep that may be negative, which stands for `before_first`: the end of the last step.
    pub(super) fn alpha_or(&self, t: i64, before_first: f64) -> Result<f64, SchedulerError> {
        usize::try_from(t).map_or(Ok(before_first), |t| self.alpha_cumprod(t))
    }
}

fn mix(
    clean: &[f32],
    clean_factor: f64,
    noise: &[f32],
    noise_factor: f64,
) -> Result<Vec<f32>, SchedulerError> {
    same_length("noise", clean.len(), noise.len())?;
    let values = clean.iter().zip(noise);
    Ok(values
        .map(|(c, n)| (clean_factor * f64::from(*c) + noise_factor * f64::from(*n)) as f32)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_arguments_are_named() {
        let schedule = NoiseSchedule::new(&SchedulerConfig::default()).unwrap();
        let error = schedule.add_noise(&[0.0; 2], &[0.0; 3], 0).unwrap_err();
        assert!(
            matches!(
                error,
                SchedulerError::Length {
                    expected: 2,
                    found: 3,
                    ..
                }
            ),
            "{error}"
        );
        let error = schedule.velocity(&[0.0], &[0.0], 1000).unwrap_err();
        assert!(
            matches!(
                error,
                SchedulerError::Timestep {
                    timestep: 1000,
                    len: 1000
                }
            ),
            "{error}"
        );
        assert!(schedule.snr(1000).is_err());
    }

    #[test]
    fn the_factors_keep_the_variance() {
        let schedule = NoiseSchedule::new(&SchedulerConfig::default()).unwrap();
        for t in [0, 500, 999] {
            let (signal, spread) = (
                schedule.sqrt_alpha(t).unwrap(),
                schedule.sqrt_one_minus_alpha(t).unwrap(),
            );
            assert!((signal.powi(2) + spread.powi(2) - 1.0).abs() < 1e-12);
            assert!(
                (schedule.snr(t).unwrap() - (signal / spread).powi(2)).abs()
                    < 1e-9 * schedule.snr(t).unwrap()
            );
        }
    }
}
