//! Euler's method on the probability flow: arXiv 2206.00364, `scheduling_euler_discrete.py`.

use super::order::{StepOrder, entry};
use super::spacing::timesteps;
use super::{
    FinalSigmasType, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerError,
    TimestepSpacing,
};

/// The exponent of the Karras spacing, the paper's choice.
const RHO: f64 = 7.0;

/// The smallest positive f16: with a schedule that ends at zero signal, the first sigma would be infinite.
const SMALLEST_ALPHA: f32 = 1.0 / 16_777_216.0;

/// Euler's method. The sample is `x_0 + sigma * noise`, so a run starts from noise of a large deviation and the model's input is scaled.
#[derive(Debug, Clone)]
pub struct Euler {
    prediction: PredictionType,
    init_noise_sigma: f64,
    /// One for each step and the one after the last, rounded to f32 as diffusers stores them.
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
    order: StepOrder,
}

impl Euler {
    /// Euler for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule, or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        refuse_unsupported(config)?;
        let mut schedule = NoiseSchedule::new(config)?;
        if config.rescale_betas_zero_snr.unwrap_or(false) {
            schedule = schedule.with_last(SMALLEST_ALPHA);
        }
        let training: Vec<f64> = schedule
            .alphas_cumprod()
            .iter()
            .map(|a| sigma(*a))
            .collect();
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let mut timesteps = timesteps(config, TimestepSpacing::Linspace, num_inference_steps)?;
        timesteps.iter_mut().for_each(|t| *t = round(*t));
        let mut sigmas: Vec<f64> = timesteps
            .iter()
            .map(|t| interpolate(&training, *t))
            .collect();

        let bound = |set: Option<f64>, found: Option<&f64>| set.or(found.copied()).unwrap_or(1.0);
        let (max, min) = (
            bound(config.sigma_max, sigmas.first()),
            bound(config.sigma_min, sigmas.last()),
        );
        let respaced = if config.use_karras_sigmas.unwrap_or(false) {
            Some(ramp(
                max.powf(1.0 / RHO),
                min.powf(1.0 / RHO),
                sigmas.len(),
                |x| x.powf(RHO),
            ))
        } else if config.use_exponential_sigmas.unwrap_or(false) {
            Some(ramp(max.ln(), min.ln(), sigmas.len(), f64::exp))
        } else {
            None
        };
        if let Some(respaced) = respaced {
            let logarithms: Vec<f64> = training.iter().map(|sigma| sigma.ln()).collect();
            timesteps = respaced
                .iter()
                .map(|sigma| round(position(&logarithms, *sigma)))
                .collect();
            sigmas = respaced;
        }

        sigmas.push(
            match config.final_sigmas_type.unwrap_or(FinalSigmasType::Zero) {
                FinalSigmasType::Zero => 0.0,
                FinalSigmasType::SigmaMin => entry(&training, 0)?,
            },
        );
        sigmas.iter_mut().for_each(|sigma| *sigma = round(*sigma));
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        };
        Ok(Self {
            prediction: config.prediction_type(),
            init_noise_sigma,
            sigmas,
            timesteps,
            order: StepOrder::default(),
        })
    }

    /// The deviation of the noise at each step, and the one after the last: `[steps + 1]`.
    #[must_use]
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(
        &self,
        sample: &mut [f32],
        step_index: usize,
    ) -> Result<(), SchedulerError> {
        super::order::check_index(step_index, self.timesteps.len())?;
        let sigma = entry(&self.sigmas, step_index)?;
        let factor = 1.0 / (sigma * sigma + 1.0).sqrt();
        for x in sample {
            *x = (factor * f64::from(*x)) as f32;
        }
        Ok(())
    }

    fn step(
        &mut self,
        model_output: &[f32],
        step_index: usize,
        sample: &mut [f32],
        _noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.order
            .advance(step_index, self.timesteps.len(), model_output, sample)?;
        let sigma = entry(&self.sigmas, step_index)?;
        let next = entry(&self.sigmas, step_index + 1)?;
        let scale = sigma * sigma + 1.0;
        for (x, output) in sample.iter_mut().zip(model_output) {
            let (value, output) = (f64::from(*x), f64::from(*output));
            let clean = match self.prediction {
                PredictionType::Epsilon => value - sigma * output,
                PredictionType::VPrediction => value / scale - output * sigma / scale.sqrt(),
                PredictionType::Sample => output,
            };
            *x = (value + (value - clean) / sigma * (next - sigma)) as f32;
        }
        Ok(())
    }
}

fn refuse_unsupported(config: &SchedulerConfig) -> Result<(), SchedulerError> {
    let unsupported = |field, found: &str| {
        Err(SchedulerError::Unsupported {
            scheduler: "euler",
            field,
            found: found.to_owned(),
        })
    };
    if config.use_beta_sigmas.unwrap_or(false) {
        return unsupported("use_beta_sigmas", "true");
    }
    if config.use_karras_sigmas.unwrap_or(false) && config.use_exponential_sigmas.unwrap_or(false) {
        return unsupported(
            "use_exponential_sigmas",
            "true together with use_karras_sigmas",
        );
    }
    match config.interpolation_type.as_deref() {
        None | Some("linear") => {}
        Some(other) => return unsupported("interpolation_type", other),
    }
    match config.timestep_type.as_deref() {
        None | Some("discrete") => {}
        Some(other) => return unsupported("timestep_type", other),
    }
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
    Ok(())
}

/// `sqrt((1 - a) / a)`, rounded as torch does.
fn sigma(alpha: f32) -> f64 {
    f64::from(((1.0 - alpha) / alpha).sqrt())
}

/// The nearest f32: diffusers keeps timesteps and sigmas in f32.
fn round(value: f64) -> f64 {
    f64::from(value as f32)
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
fn interpolate(table: &[f64], at: f64) -> f64 {
    let low = at.floor() as usize;
    match (table.get(low), table.get(low + 1)) {
        (Some(a), Some(b)) => (b - a) * (at - low as f64) + a,
        (Some(a), None) => *a,
        (None, _) => table.last().copied().unwrap_or(0.0),
    }
}

/// The fractional index at which an ascending table of logarithms holds a sigma; inverse of [`interpolate`] in log space.
fn position(logarithms: &[f64], sigma: f64) -> f64 {
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

    #[test]
    fn options_that_are_not_implemented_are_refused_by_name() {
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
                    interpolation_type: Some("log_linear".into()),
                    ..base.clone()
                },
                "interpolation_type",
            ),
            (
                SchedulerConfig {
                    timestep_type: Some("continuous".into()),
                    ..base.clone()
                },
                "timestep_type",
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
                    use_karras_sigmas: Some(true),
                    use_exponential_sigmas: Some(true),
                    ..base
                },
                "use_exponential_sigmas",
            ),
        ] {
            let error = Euler::new(&config, 10).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn a_true_prediction_of_the_noise_gives_back_the_clean_sample() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let mut euler = Euler::new(&config, 7).unwrap();
        let (clean, noise) = (0.3_f32, -1.5_f32);
        let mut sample = [clean + euler.init_noise_sigma() as f32 * noise];
        for index in 0..7 {
            euler
                .step(&[noise], index, &mut sample, &mut |_| ())
                .unwrap();
        }
        assert!((sample[0] - clean).abs() < 1e-5, "{sample:?}");
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
