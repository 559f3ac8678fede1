//! Sigmas: the deviations of the noise, and the curves they may follow instead of the timesteps'.

use super::error::only;
use super::{FinalSigmasType, SchedulerConfig, SchedulerError};

/// The exponent of the Karras spacing, the paper's choice.
const RHO: f64 = 7.0;

/// How sigmas that do not follow the timesteps grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    /// arXiv 2206.00364, formula 5.
    Karras,
    /// Evenly in their logarithm.
    Exponential,
}

/// Sigmas that follow a curve and not the timesteps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) curve: Curve,
    /// The smallest and the largest sigma, where the configuration sets them.
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Spread {
    /// The curve that the configuration asks for, if it does.
    pub(super) fn from_config(
        scheduler: &'static str,
        config: &SchedulerConfig,
    ) -> Result<Option<Self>, SchedulerError> {
        let beta = ("use_beta_sigmas", config.use_beta_sigmas, false);
        only(scheduler, &[beta])?;
        for (field, sigma) in [
            ("sigma_min", config.sigma_min),
            ("sigma_max", config.sigma_max),
        ] {
            if let Some(sigma) = sigma
                && !(sigma > 0.0 && sigma.is_finite())
            {
                return Err(SchedulerError::InvalidField {
                    field,
                    found: sigma.to_string(),
                    expected: "a positive number".to_owned(),
                });
            }
        }
        if let (Some(min), Some(max)) = (config.sigma_min, config.sigma_max) {
            ordered(min, max)?;
        }
        let curve = match (
            config.use_karras_sigmas.unwrap_or(false),
            config.use_exponential_sigmas.unwrap_or(false),
        ) {
            (true, true) => {
                return Err(SchedulerError::Unsupported {
                    scheduler,
                    field: "use_exponential_sigmas",
                    found: "true together with use_karras_sigmas".to_owned(),
                });
            }
            (true, false) => Curve::Karras,
            (false, true) => Curve::Exponential,
            (false, false) => return Ok(None),
        };
        Ok(Some(Self {
            curve,
            min: config.sigma_min,
            max: config.sigma_max,
        }))
    }

    /// `count` sigmas, the largest first. `first` and `last` are the ends where the configuration sets none.
    ///
    /// # Errors
    /// An end that the configuration sets lies beyond the other one.
    pub(super) fn sigmas(
        self,
        first: f64,
        last: f64,
        count: usize,
    ) -> Result<Vec<f64>, SchedulerError> {
        let (max, min) = (self.max.unwrap_or(first), self.min.unwrap_or(last));
        if count > 1 {
            ordered(min, max)?;
        }
        Ok(match self.curve {
            Curve::Karras => ramp(max.powf(1.0 / RHO), min.powf(1.0 / RHO), count, |x| {
                x.powf(RHO)
            }),
            Curve::Exponential => ramp(max.ln(), min.ln(), count, f64::exp),
        })
    }
}

/// Fails if noise would grow in the course of a run.
fn ordered(min: f64, max: f64) -> Result<(), SchedulerError> {
    if min <= max {
        return Ok(());
    }
    Err(SchedulerError::InvalidField {
        field: "sigma_min",
        found: min.to_string(),
        expected: format!("at most the largest sigma, {max}"),
    })
}

/// The sigma that a run ends at, `smallest` being the one of the training schedule.
pub(super) fn final_sigma(config: &SchedulerConfig, smallest: f64) -> f64 {
    match config.final_sigmas_type.unwrap_or(FinalSigmasType::Zero) {
        FinalSigmasType::Zero => 0.0,
        FinalSigmasType::SigmaMin => smallest,
    }
}

/// The factors of the clean sample and of the noise in a sample of unit variance.
pub(super) fn factors(sigma: f64) -> (f64, f64) {
    let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
    (signal, sigma * signal)
}

/// `count` values from `first` to `last`, evenly spaced before `shape` bends them.
fn ramp(first: f64, last: f64, count: usize, shape: impl Fn(f64) -> f64) -> Vec<f64> {
    let step = if count > 1 {
        1.0 / (count - 1) as f64
    } else {
        0.0
    };
    (0..count)
        .map(|i| shape(first + i as f64 * step * (last - first)))
        .collect()
}

/// The table's value at a fractional index, between its two neighbours.
pub(super) fn interpolate(table: &[f64], at: f64) -> f64 {
    let low = at.floor() as usize;
    match (table.get(low), table.get(low + 1)) {
        (Some(a), Some(b)) => (b - a) * (at - low as f64) + a,
        (Some(a), None) => *a,
        (None, _) => table.last().copied().unwrap_or(0.0),
    }
}

/// The fractional index at which an ascending table of logarithms holds a sigma; inverse of [`interpolate`] in log space.
pub(super) fn position(logarithms: &[f64], sigma: f64) -> f64 {
    let log = sigma.max(1e-10).ln();
    let above = logarithms.partition_point(|entry| *entry <= log);
    let low = above
        .saturating_sub(1)
        .min(logarithms.len().saturating_sub(2));
    match (logarithms.get(low), logarithms.get(low + 1)) {
        (Some(a), Some(b)) => low as f64 + ((log - a) / (b - a)).clamp(0.0, 1.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::{PredictionType, SchedulerKind, build};

    #[test]
    fn curves_that_cannot_be_followed_are_refused_by_name() {
        let base = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for (config, field) in [
            (
                SchedulerConfig {
                    use_beta_sigmas: Some(true),
                    ..base.clone()
                },
                "use_beta_sigmas",
            ),
            (
                SchedulerConfig {
                    sigma_min: Some(-1.0),
                    ..base.clone()
                },
                "sigma_min",
            ),
            (
                SchedulerConfig {
                    sigma_max: Some(f64::NAN),
                    ..base.clone()
                },
                "sigma_max",
            ),
            (
                SchedulerConfig {
                    sigma_min: Some(2.0),
                    sigma_max: Some(1.0),
                    ..base.clone()
                },
                "sigma_min",
            ),
            (
                SchedulerConfig {
                    sigma_min: Some(1e9),
                    use_exponential_sigmas: Some(true),
                    ..base.clone()
                },
                "sigma_min",
            ),
            (
                SchedulerConfig {
                    use_karras_sigmas: Some(true),
                    use_exponential_sigmas: Some(true),
                    ..base
                },
                "use_exponential_sigmas",
            ),
        ] {
            for kind in [
                SchedulerKind::Euler,
                SchedulerKind::Heun,
                SchedulerKind::Lms,
                SchedulerKind::Dpmpp2m,
                SchedulerKind::UniPc,
            ] {
                let error = build(kind, &config, 10).unwrap_err().to_string();
                assert!(error.contains(field), "{kind}: {error}");
            }
        }
    }

    #[test]
    fn position_inverts_interpolation_in_log_space() {
        let logarithms = [-2.0, -1.0, 0.5];
        for (log, at) in [
            (-2.0_f64, 0.0),
            (-1.5, 0.5),
            (-1.0, 1.0),
            (0.5, 2.0),
            (9.0, 2.0),
            (-9.0, 0.0),
        ] {
            assert!(
                (position(&logarithms, log.exp()) - at).abs() < 1e-12,
                "{log}"
            );
        }
    }
}
