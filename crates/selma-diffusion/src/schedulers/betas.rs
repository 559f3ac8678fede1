//! The training schedule: betas and the running product of `1 - beta`.
//!
//! diffusers keeps these tables in f32, and 1000 factors that are each rounded to f32 drift from their f64 product by more than 1e-6. To give the
//! same pictures as diffusers the tables must therefore be rounded where it rounds: each beta to f32, `1 - beta` to f32, the product carried in f64 and each
//! entry rounded to f32 (as `torch.cumprod` does on the CPU).

use super::{BetaSchedule, SchedulerConfig, SchedulerError};

const MAX_COSINE_BETA: f64 = 0.999;
/// A hundred times what any published model has, so that a damaged file does not take all memory.
const MAX_TIMESTEPS: usize = 100_000;

/// The betas of the training schedule, `[num_train_timesteps]`, before any rescaling to zero terminal SNR.
///
/// # Errors
/// A field is out of range: no timesteps or more than 100,000, a beta that is not between 0 and 1, or `trained_betas` of another length.
pub(super) fn betas(config: &SchedulerConfig) -> Result<Vec<f32>, SchedulerError> {
    let count = config.num_train_timesteps();
    if !(1..=MAX_TIMESTEPS).contains(&count) {
        let expected = format!("1 to {MAX_TIMESTEPS}");
        return Err(invalid("num_train_timesteps", &count, &expected));
    }
    if let Some(trained) = &config.trained_betas {
        if trained.len() != count {
            let found = format!("{} values", trained.len());
            return Err(invalid(
                "trained_betas",
                &found,
                &format!("{count} values, as num_train_timesteps says"),
            ));
        }
        if let Some(beta) = trained.iter().find(|beta| !is_beta(**beta)) {
            return Err(invalid(
                "trained_betas",
                &beta,
                "values above 0 and below 1",
            ));
        }
        return Ok(trained.iter().map(|beta| *beta as f32).collect());
    }
    let start = config.beta_start.unwrap_or(0.0001);
    let end = config.beta_end.unwrap_or(0.02);
    for (field, beta) in [("beta_start", start), ("beta_end", end)] {
        if !is_beta(beta) {
            return Err(invalid(field, &beta, "a value above 0 and below 1"));
        }
    }
    Ok(match config.beta_schedule.unwrap_or(BetaSchedule::Linear) {
        BetaSchedule::Linear => linspace(start as f32, end as f32, count),
        BetaSchedule::ScaledLinear => {
            let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, count);
            roots.into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredcosCapV2 => (0..count)
            .map(|i| {
                let bar = |i: usize| cosine_alpha_bar(i as f64 / count as f64);
                (1.0 - bar(i + 1) / bar(i)).min(MAX_COSINE_BETA) as f32
            })
            .collect(),
    })
}

/// `alphas_cumprod`: entry t is the share of the clean sample's variance that is left at training timestep t.
pub(super) fn alphas_cumprod(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// Betas of the same shape whose last timestep keeps nothing of the clean sample: arXiv 2305.08891, algorithm 1.
pub(super) fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = alphas_cumprod(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let stretch = first / (first - last);
    let bars = roots.iter().map(|root| {
        let moved = (root - last) * stretch;
        moved * moved
    });
    let mut previous = 1.0;
    bars.map(|bar| {
        let alpha = bar / previous;
        previous = bar;
        1.0 - alpha
    })
    .collect()
}

fn is_beta(beta: f64) -> bool {
    beta > 0.0 && beta < 1.0
}

fn cosine_alpha_bar(t: f64) -> f64 {
    ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
        .cos()
        .powi(2)
}

/// `torch.linspace`: counted from the nearer end, so that both ends are exact, and with fused multiplication and addition, as torch compiles it.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| {
            if i < count / 2 {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((count - 1 - i) as f32, end)
            }
        })
        .collect()
}

fn invalid(field: &'static str, found: &dyn ToString, expected: &str) -> SchedulerError {
    SchedulerError::InvalidField {
        field,
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn betas_out_of_range_are_refused_by_name() {
        for (beta_start, beta_end, field) in [
            (Some(0.0), None, "beta_start"),
            (Some(f64::NAN), None, "beta_start"),
            (None, Some(1.0), "beta_end"),
        ] {
            let config = SchedulerConfig {
                beta_start,
                beta_end,
                ..SchedulerConfig::default()
            };
            let error = betas(&config).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        for count in [0, 100_001, usize::MAX] {
            let config = SchedulerConfig {
                num_train_timesteps: Some(count),
                ..SchedulerConfig::default()
            };
            let error = betas(&config).unwrap_err().to_string();
            assert!(error.contains("num_train_timesteps"), "{error}");
        }
    }

    #[test]
    fn trained_betas_must_fit_the_schedule() {
        let mut config = SchedulerConfig {
            num_train_timesteps: Some(3),
            trained_betas: Some(vec![0.1, 0.2]),
            ..SchedulerConfig::default()
        };
        assert!(betas(&config).unwrap_err().to_string().contains("2 values"));
        config.trained_betas = Some(vec![0.1, 0.2, 1.5]);
        assert!(betas(&config).unwrap_err().to_string().contains("1.5"));
        config.trained_betas = Some(vec![0.1, 0.2, 0.3]);
        assert_eq!(betas(&config).unwrap(), [0.1, 0.2, 0.3]);
    }

    #[test]
    fn zero_terminal_snr_ends_at_zero_and_keeps_the_first_step() {
        let before = betas(&SchedulerConfig::default()).unwrap();
        let after = rescale_zero_terminal_snr(&before);
        assert_eq!(alphas_cumprod(&after).last(), Some(&0.0));
        assert!((after[0] - before[0]).abs() < 1e-6);
    }
}
