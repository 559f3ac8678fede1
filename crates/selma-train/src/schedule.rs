//! Learning rates over time.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How the learning rate goes on after its warm-up, as `--lr_scheduler` of diffusers' training scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// It stays.
    #[default]
    Constant,
    /// It falls to zero in a line.
    Linear,
    /// It falls to zero by half a cosine.
    Cosine,
}

impl LrScheduler {
    /// The names that can be parsed, which are those in files.
    pub const NAMES: [&str; 3] = ["constant", "linear", "cosine"];

    /// What the peak is multiplied with at a step, counted from 0: a line from zero over the first `warmup` steps, then what this is.
    ///
    /// As `get_scheduler` of `diffusers.optimization`, where a constant rate with a warm-up has a name of its own.
    #[must_use]
    pub fn factor(self, step: usize, warmup: usize, steps: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let rest = steps.saturating_sub(warmup).max(1) as f64;
        let done = ((step - warmup) as f64 / rest).min(1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - done,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

impl FromStr for LrScheduler {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        match name {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            other => Err(TrainError::Setting {
                field: "lr_scheduler",
                expected: format!("one of {}", Self::NAMES.join(", ")),
                found: other.to_owned(),
            }),
        }
    }
}

/// The one-cycle learning rate: a linear rise over the first tenth of the steps, then a cosine down to zero.
///
/// `step` counts from 0.
#[must_use]
pub fn one_cycle(step: usize, steps: usize, peak: f64) -> f64 {
    let warmup = (steps / 10).max(1);
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_files() {
        for name in LrScheduler::NAMES {
            let read: LrScheduler = serde_json::from_value(name.into()).unwrap();
            assert_eq!(read, name.parse().unwrap());
        }
        let error = "polynomial".parse::<LrScheduler>().unwrap_err();
        assert!(error.to_string().contains("polynomial"), "{error}");
    }

    /// The expected values are those of `get_scheduler` of diffusers 0.42.1, with 3 of 10 steps of warm-up.
    #[test]
    fn factors_are_those_of_diffusers() {
        let warmup = [0.0, 0.333_333_333_333_333_3, 0.666_666_666_666_666_6];
        for (scheduler, rest) in [
            (LrScheduler::Constant, [1.0; 7]),
            (
                LrScheduler::Linear,
                [
                    1.0,
                    0.857_142_857_142_857_1,
                    0.714_285_714_285_714_3,
                    0.571_428_571_428_571_4,
                    0.428_571_428_571_428_55,
                    0.285_714_285_714_285_7,
                    0.142_857_142_857_142_85,
                ],
            ),
            (
                LrScheduler::Cosine,
                [
                    1.0,
                    0.950_484_433_951_209_5,
                    0.811_744_900_929_366_8,
                    0.611_260_466_978_157_2,
                    0.388_739_533_021_842_8,
                    0.188_255_099_070_633_26,
                    0.049_515_566_048_790_48,
                ],
            ),
        ] {
            for (step, expected) in warmup.into_iter().chain(rest).enumerate() {
                let found = scheduler.factor(step, 3, 10);
                assert!((found - expected).abs() < 1e-12, "{scheduler:?} {step}");
            }
            assert_eq!(scheduler.factor(0, 0, 10), 1.0);
        }
    }

    #[test]
    fn rises_then_falls() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(step, 100, 1.0)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12);
        assert!((rates[9] - 1.0).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(rates[99] < 1e-3);
    }
}
