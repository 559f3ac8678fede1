//! Intervals by the bootstrap.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use super::{bca, draw::below, quantile::quantile};
use crate::EvalError;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Which quantiles of the resamples are the ends of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalMethod {
    /// Those that cut off the same share on both sides.
    #[default]
    Percentile,
    /// Those corrected for bias and skewness (Efron 1987, "Better bootstrap confidence intervals"): closer to the
    /// promised confidence for few prompts and for scores near 0 or 1.
    Bca,
}

/// Intervals of several numbers from the same resamples.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resampled {
    /// The interval of each number.
    pub(crate) intervals: Vec<Interval>,
    /// Resamples in which the numbers are not defined; they are left out.
    pub(crate) undefined: u32,
}

/// Settings of the bootstrap (Efron 1979; Davison & Hinkley 1997, section 5.3).
///
/// Resample `b` draws from its own ChaCha8 stream, the one numbered `b` under `seed`, so that its value depends on
/// nothing else: not on the other resamples, the order of work, or the number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bootstrap {
    /// Number of resamples; 2000.
    pub resamples: u32,
    /// Share of resamples inside the interval, between 0 and 1; 0.95.
    pub confidence: f64,
    /// Seed of all draws; 0.
    pub seed: u64,
    /// Which quantiles of the resamples are the ends of an interval; `percentile`, which a file leaves out.
    #[serde(skip_serializing_if = "is_default")]
    pub method: IntervalMethod,
}

fn is_default(method: &IntervalMethod) -> bool {
    *method == IntervalMethod::default()
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 2000,
            confidence: 0.95,
            seed: 0,
            method: IntervalMethod::default(),
        }
    }
}

impl Bootstrap {
    /// The interval of any statistic of `units` independent things, such as prompts. The statistic is given the positions
    /// of the things to compute it of, some of them repeatedly; where it is not defined it says `None`.
    ///
    /// Resamples without a value are left out. The interval is `None` if the statistic is not defined for all units
    /// together, or in no resample.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without units, [`EvalError::Setting`] for settings that make no sense.
    pub fn interval(
        &self,
        units: usize,
        statistic: impl Fn(&[usize]) -> Option<f64>,
    ) -> Result<Option<Interval>, EvalError> {
        let resampled = self.intervals(units, |picked| Some(vec![statistic(picked)?]))?;
        Ok(resampled.and_then(|resampled| resampled.intervals.first().copied()))
    }

    /// As [`interval`](Self::interval), for a statistic of several numbers.
    pub(crate) fn intervals(
        &self,
        units: usize,
        statistic: impl Fn(&[usize]) -> Option<Vec<f64>>,
    ) -> Result<Option<Resampled>, EvalError> {
        self.validate()?;
        if units == 0 {
            return Err(EvalError::Empty { what: "units" });
        }
        let all: Vec<usize> = (0..units).collect();
        let Some(observed) = statistic(&all) else {
            return Ok(None);
        };
        let replicates: Vec<Vec<f64>> = (0..self.resamples)
            .filter_map(|b| statistic(&self.resample(units, b)))
            .collect();
        let Some(defined) = u32::try_from(replicates.len()).ok().filter(|n| *n > 0) else {
            return Ok(None);
        };
        let without_one: Vec<Vec<f64>> = match self.method {
            IntervalMethod::Percentile => Vec::new(),
            IntervalMethod::Bca => (0..units)
                .filter_map(|left| {
                    let others: Vec<usize> = (0..units).filter(|unit| *unit != left).collect();
                    statistic(&others)
                })
                .collect(),
        };
        let column = |rows: &[Vec<f64>], index: usize| -> Vec<f64> {
            rows.iter()
                .filter_map(|row| row.get(index).copied())
                .collect()
        };
        let tail = (1.0 - self.confidence) / 2.0;
        let intervals = observed.iter().enumerate().map(|(index, &observed)| {
            let mut values = column(&replicates, index);
            values.sort_by(f64::total_cmp);
            let [low, high] = match self.method {
                IntervalMethod::Percentile => [tail, 1.0 - tail],
                IntervalMethod::Bca => {
                    bca::levels(observed, &values, &column(&without_one, index), tail)
                }
            };
            Interval {
                low: quantile(&values, low),
                high: quantile(&values, high),
            }
        });
        Ok(Some(Resampled {
            intervals: intervals.collect(),
            undefined: self.resamples - defined,
        }))
    }

    /// The positions in resample `b`: as many as there are units, drawn with replacement.
    fn resample(&self, units: usize, b: u32) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(b));
        (0..units).map(|_| below(&mut rng, units)).collect()
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`EvalError::Setting`] for no resamples, or a confidence that is not strictly between 0 and 1.
    pub fn validate(&self) -> Result<(), EvalError> {
        if self.resamples == 0 {
            return Err(EvalError::Setting {
                name: "bootstrap.resamples",
                expected: "at least 1",
                found: "0".to_owned(),
            });
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(EvalError::Setting {
                name: "bootstrap.confidence",
                expected: "a share between 0 and 1, both excluded",
                found: self.confidence.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resample_depends_on_its_number_and_the_seed_alone() {
        let bootstrap = Bootstrap::default();
        let forwards: Vec<Vec<usize>> = (0..50).map(|b| bootstrap.resample(4, b)).collect();
        let backwards: Vec<Vec<usize>> = (0..50)
            .rev()
            .map(|b| bootstrap.resample(4, b))
            .rev()
            .collect();
        assert_eq!(forwards, backwards);
        let threads: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..50)
                .map(|b| scope.spawn(move || bootstrap.resample(4, b)))
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap())
                .collect()
        });
        assert_eq!(forwards, threads);
        let other = Bootstrap {
            seed: 1,
            ..bootstrap
        };
        assert_ne!(
            forwards,
            (0..50).map(|b| other.resample(4, b)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_statistic_that_is_not_defined_has_no_interval() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.interval(3, |_| None).unwrap(), None);
        // Defined for all units alone.
        let all = |picked: &[usize]| (picked == [0, 1, 2, 3, 4, 5, 6, 7]).then_some(1.0);
        assert_eq!(bootstrap.interval(8, all).unwrap(), None);
        let error = bootstrap.interval(0, |_| Some(1.0)).unwrap_err();
        assert!(matches!(error, EvalError::Empty { .. }), "{error}");
        // The smallest of three, where it is not the first: undefined in 18 of the 27 resamples.
        let low = |picked: &[usize]| match picked.iter().min() {
            Some(0) if picked != [0, 1, 2] => None,
            low => Some(vec![*low? as f64]),
        };
        let resampled = bootstrap.intervals(3, low).unwrap().unwrap();
        assert_eq!(
            resampled.intervals,
            [Interval {
                low: 0.0,
                high: 2.0
            }]
        );
        // Six standard deviations of a binomial count.
        let expected = 2000 * 18 / 27;
        assert!(
            resampled.undefined.abs_diff(expected) < 126,
            "{resampled:?}"
        );
    }

    #[test]
    fn settings_are_read_and_written() {
        let plain = serde_json::to_string(&Bootstrap::default()).unwrap();
        assert_eq!(plain, r#"{"resamples":2000,"confidence":0.95,"seed":0}"#);
        let bca: Bootstrap = serde_json::from_str(r#"{"method":"bca"}"#).unwrap();
        assert_eq!(bca.method, IntervalMethod::Bca);
        let again: Bootstrap = serde_json::from_str(&serde_json::to_string(&bca).unwrap()).unwrap();
        assert_eq!(again, bca);
        let error = serde_json::from_str::<Bootstrap>(r#"{"method":"bc"}"#).unwrap_err();
        assert!(
            error.to_string().contains("`percentile` or `bca`"),
            "{error}"
        );
    }
}
