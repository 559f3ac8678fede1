//! Which training timesteps an inference run visits.

use super::{SchedulerConfig, SchedulerError, TimestepSpacing};

/// The inference timesteps from the noisiest to the cleanest, not yet rounded for `linspace`: `[steps]`.
///
/// # Errors
/// No steps, more steps than training timesteps, or a timestep outside the training schedule (a `steps_offset` that is too large).
pub(super) fn timesteps(
    config: &SchedulerConfig,
    default: TimestepSpacing,
    steps: usize,
) -> Result<Vec<f64>, SchedulerError> {
    let train = config.num_train_timesteps();
    check_steps(steps, 1, train)?;
    let ascending = match config.timestep_spacing.unwrap_or(default) {
        TimestepSpacing::Linspace => linspace((train - 1) as f64, steps),
        TimestepSpacing::Leading => leading(config, train / steps, steps),
        TimestepSpacing::Trailing => trailing(train as f64, train as f64 / steps as f64),
    };
    check_range(&ascending, train)?;
    Ok(ascending.into_iter().rev().collect())
}

/// The integer timesteps of the solvers in the log-SNR, from the noisiest to the cleanest: `linspace` and `leading` make one more and leave out the cleanest, as the
/// run itself ends there. Only the first `kept` training timesteps are visited.
///
/// # Errors
/// As [`timesteps`].
pub(super) fn solver_timesteps(
    config: &SchedulerConfig,
    kept: usize,
    steps: usize,
) -> Result<Vec<i64>, SchedulerError> {
    let train = config.num_train_timesteps();
    check_steps(steps, 1, kept.saturating_sub(1))?;
    let (ascending, left_out) = match config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace) {
        TimestepSpacing::Linspace => (linspace((kept - 1) as f64, steps + 1), 1),
        TimestepSpacing::Leading => (leading(config, kept / (steps + 1), steps + 1), 1),
        TimestepSpacing::Trailing => (trailing(kept as f64, train as f64 / steps as f64), 0),
    };
    check_range(&ascending, train)?;
    let descending = ascending.iter().skip(left_out).rev();
    Ok(descending.map(|t| t.round_ties_even() as i64).collect())
}

/// `numpy.linspace` from zero to `last`, both included.
fn linspace(last: f64, count: usize) -> Vec<f64> {
    // numpy gives the start alone for one step.
    let step = if count > 1 {
        last / (count - 1) as f64
    } else {
        0.0
    };
    (0..count)
        .map(|i| {
            if i > 0 && i + 1 == count {
                last
            } else {
                i as f64 * step
            }
        })
        .collect()
}

fn leading(config: &SchedulerConfig, ratio: usize, count: usize) -> Vec<f64> {
    let offset = config.steps_offset.unwrap_or(0);
    let timestep = |i| (i * ratio) as f64 + offset as f64;
    (0..count).map(timestep).collect()
}

/// Counted down from `top` in steps of `ratio`, less one; ascending.
fn trailing(top: f64, ratio: f64) -> Vec<f64> {
    // numpy.arange: the length is a rounded-up quotient and the increment that of the first two values. The quotient of some step counts (61, 103, ..) comes
    // out just above a whole number, and diffusers then makes one step too many, at timestep -1.
    let count = (top / ratio).ceil() as usize;
    let increment = (top - ratio) - top;
    (0..count)
        .rev()
        .map(|i| (top + i as f64 * increment).round_ties_even() - 1.0)
        .filter(|t| *t >= 0.0)
        .collect()
}

fn check_range(timesteps: &[f64], train: usize) -> Result<(), SchedulerError> {
    let range = 0.0..=(train - 1) as f64;
    match timesteps.iter().find(|t| !range.contains(*t)) {
        Some(outside) => Err(SchedulerError::Timestep {
            timestep: *outside as i64,
            len: train,
        }),
        None => Ok(()),
    }
}

/// [`timesteps`] rounded half to even, as numpy rounds.
pub(super) fn integer_timesteps(
    config: &SchedulerConfig,
    steps: usize,
) -> Result<Vec<i64>, SchedulerError> {
    let exact = timesteps(config, TimestepSpacing::Leading, steps)?;
    Ok(exact
        .into_iter()
        .map(|t| t.round_ties_even() as i64)
        .collect())
}

/// Fails unless `min <= steps <= max`.
pub(super) fn check_steps(steps: usize, min: usize, max: usize) -> Result<(), SchedulerError> {
    if (min..=max).contains(&steps) {
        Ok(())
    } else {
        Err(SchedulerError::Steps {
            found: steps,
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::PredictionType;

    fn spaced(spacing: TimestepSpacing, steps: usize) -> Vec<i64> {
        let config = SchedulerConfig {
            timestep_spacing: Some(spacing),
            ..SchedulerConfig::stable_diffusion(PredictionType::Epsilon)
        };
        integer_timesteps(&config, steps).unwrap()
    }

    #[test]
    fn spacings_are_those_of_the_paper() {
        assert_eq!(spaced(TimestepSpacing::Leading, 5), [801, 601, 401, 201, 1]);
        assert_eq!(
            spaced(TimestepSpacing::Linspace, 5),
            [999, 749, 500, 250, 0]
        );
        assert_eq!(
            spaced(TimestepSpacing::Trailing, 5),
            [999, 799, 599, 399, 199]
        );
        assert_eq!(spaced(TimestepSpacing::Trailing, 61).len(), 61);
    }

    #[test]
    fn solvers_leave_out_the_cleanest_timestep() {
        let solver = |spacing, kept| {
            let config = SchedulerConfig {
                timestep_spacing: Some(spacing),
                ..SchedulerConfig::stable_diffusion(PredictionType::Epsilon)
            };
            solver_timesteps(&config, kept, 4)
        };
        let all = |spacing| solver(spacing, 1000).unwrap();
        assert_eq!(all(TimestepSpacing::Linspace), [999, 749, 500, 250]);
        assert_eq!(all(TimestepSpacing::Leading), [801, 601, 401, 201]);
        assert_eq!(all(TimestepSpacing::Trailing), [999, 749, 499, 249]);
        assert_eq!(
            solver(TimestepSpacing::Linspace, 801).unwrap(),
            [800, 600, 400, 200]
        );
        assert!(solver(TimestepSpacing::Linspace, 3).is_err());
    }

    #[test]
    fn step_counts_that_cannot_be_spread_are_refused() {
        let config = SchedulerConfig::default();
        assert!(matches!(
            integer_timesteps(&config, 0),
            Err(SchedulerError::Steps { found: 0, .. })
        ));
        assert!(matches!(
            integer_timesteps(&config, 1001),
            Err(SchedulerError::Steps { max: 1000, .. })
        ));
        assert_eq!(integer_timesteps(&config, 1000).unwrap().len(), 1000);
    }

    #[test]
    fn an_offset_beyond_the_table_is_refused() {
        let mut config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let error = integer_timesteps(&config, 1000).unwrap_err();
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
        config.steps_offset = Some(usize::MAX);
        assert!(integer_timesteps(&config, 10).is_err());
    }
}
