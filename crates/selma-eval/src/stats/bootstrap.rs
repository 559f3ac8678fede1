//! Bootstrap over clusters.

#![allow(
    clippy::indexing_slicing,
    reason = "positions are drawn or computed below the length of a slice that is not empty"
)]

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use super::{bca, draw::below, permutation};
use crate::EvalError;

/// The values that belong together, summed: the scores of one prompt's questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// Sum of the values.
    pub sum: f64,
    /// Number of values, at least 1.
    pub count: u32,
}

/// A mean and its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Mean over all values.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Values averaged: questions for a mean over questions, prompts for a mean over prompts.
    pub n: usize,
    /// Prompts, the independent units; equal to `n` for a mean over prompts.
    pub clusters: usize,
}

/// The difference of two means over the same prompts, first minus second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// Mean of the first minus mean of the second.
    pub difference: f64,
    /// Lower end of the interval of the difference.
    pub low: f64,
    /// Upper end of the interval of the difference.
    pub high: f64,
    /// Two-sided p-value of the paired permutation test (random exchange of the two models' scores, prompt by
    /// prompt). Exact when there are at most as many exchanges as resamples, else (1 + extreme) / (1 + resamples).
    pub p: f64,
    /// Values averaged in each mean.
    pub n: usize,
    /// Prompts.
    pub clusters: usize,
}

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
    /// The mean over all values of all clusters, with the interval over resampled clusters.
    ///
    /// With a single cluster there is nothing to resample and the interval has no width: look at
    /// [`Estimate::clusters`] before trusting a narrow interval.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without clusters, [`EvalError::Cluster`] for a sum that is not finite or a count of 0,
    /// [`EvalError::Setting`] for settings that make no sense.
    pub fn estimate(&self, clusters: &[Cluster]) -> Result<Estimate, EvalError> {
        self.check(clusters)?;
        let Interval { low, high } = self.interval_of_mean(clusters)?;
        Ok(Estimate {
            mean: mean(clusters.iter()),
            low,
            high,
            n: values(clusters),
            clusters: clusters.len(),
        })
    }

    /// The difference of the means of `a` and `b`, whose clusters are the same prompts in the same order. Each
    /// resample takes the same prompts for both.
    ///
    /// # Errors
    /// Those of [`estimate`](Self::estimate); [`EvalError::Unpaired`] and [`EvalError::UnequalPair`] when the two
    /// do not have the same clusters of the same sizes.
    pub fn paired(&self, a: &[Cluster], b: &[Cluster]) -> Result<Paired, EvalError> {
        if a.len() != b.len() {
            return Err(EvalError::Unpaired {
                a: a.len(),
                b: b.len(),
            });
        }
        self.check(a)?;
        self.check(b)?;
        let mut differences = Vec::with_capacity(a.len());
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            if a.count != b.count {
                return Err(EvalError::UnequalPair {
                    index,
                    a: a.count,
                    b: b.count,
                });
            }
            // With equal counts the difference of the means is the mean of the differences.
            differences.push(Cluster {
                sum: a.sum - b.sum,
                count: a.count,
            });
        }
        let Interval { low, high } = self.interval_of_mean(&differences)?;
        Ok(Paired {
            difference: mean(differences.iter()),
            low,
            high,
            p: permutation::sign_flip(&differences, self.resamples, self.seed),
            n: values(&differences),
            clusters: differences.len(),
        })
    }

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

    fn interval_of_mean(&self, clusters: &[Cluster]) -> Result<Interval, EvalError> {
        let of = |picked: &[usize]| Some(mean(picked.iter().map(|&index| &clusters[index])));
        self.interval(clusters.len(), of)?
            .ok_or(EvalError::Empty { what: "clusters" })
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

    fn check(&self, clusters: &[Cluster]) -> Result<(), EvalError> {
        self.validate()?;
        if clusters.is_empty() {
            return Err(EvalError::Empty { what: "clusters" });
        }
        for (index, &Cluster { sum, count }) in clusters.iter().enumerate() {
            if !sum.is_finite() || count == 0 {
                return Err(EvalError::Cluster { index, sum, count });
            }
        }
        Ok(())
    }
}

/// The `q`-quantile (0 to 1) of values in any order, linear between the two nearest: numpy's default method.
/// `None` when there are no values or `q` is outside of 0 to 1.
pub fn percentile(values: &[f64], q: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(quantile(&sorted, q))
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len() - 1;
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let share = position - below as f64;
    sorted[below] + (sorted[above] - sorted[below]) * share
}

fn mean<'a>(clusters: impl Iterator<Item = &'a Cluster>) -> f64 {
    let (sum, count) = clusters.fold((0.0, 0.0), |(sum, count), cluster| {
        (sum + cluster.sum, count + f64::from(cluster.count))
    });
    sum / count
}

fn values(clusters: &[Cluster]) -> usize {
    clusters.iter().map(|cluster| cluster.count as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(values: &[(f64, u32)]) -> Vec<Cluster> {
        values
            .iter()
            .map(|&(sum, count)| Cluster { sum, count })
            .collect()
    }

    #[test]
    fn the_mean_is_over_values_not_over_clusters() {
        let estimate = Bootstrap::default()
            .estimate(&clusters(&[(1.0, 1), (0.0, 3)]))
            .unwrap();
        assert_eq!((estimate.mean, estimate.n, estimate.clusters), (0.25, 4, 2));
        // The resamples are {a,a} = 1, {a,b} = 1/4, {b,b} = 0 with chances 1/4, 1/2, 1/4.
        assert_eq!((estimate.low, estimate.high), (0.0, 1.0));
        let narrow = Bootstrap {
            confidence: 0.4,
            ..Bootstrap::default()
        };
        let estimate = narrow.estimate(&clusters(&[(1.0, 1), (0.0, 3)])).unwrap();
        assert_eq!((estimate.low, estimate.high), (0.25, 0.25));
    }

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
            (0..50)
                .map(|b| other.resample(4, b))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn pairing_removes_what_the_prompts_have_in_common() {
        // Prompts differ wildly, the models by exactly 1 on each.
        let a = clusters(&[(10.0, 1), (1.0, 1), (5.0, 1), (100.0, 1)]);
        let b = clusters(&[(9.0, 1), (0.0, 1), (4.0, 1), (99.0, 1)]);
        let paired = Bootstrap::default().paired(&a, &b).unwrap();
        assert_eq!(
            (paired.difference, paired.low, paired.high),
            (1.0, 1.0, 1.0)
        );
        assert_eq!(paired.p, 2.0 / 16.0);
        let reversed = Bootstrap::default().paired(&b, &a).unwrap();
        assert_eq!((reversed.difference, reversed.p), (-1.0, paired.p));
    }

    #[test]
    fn refuses_what_has_no_mean_or_no_partner() {
        let bootstrap = Bootstrap::default();
        let one = clusters(&[(1.0, 1)]);
        assert!(matches!(
            bootstrap.estimate(&[]),
            Err(EvalError::Empty { .. })
        ));
        for bad in [(f64::NAN, 1), (f64::INFINITY, 1), (0.0, 0)] {
            let error = bootstrap.estimate(&clusters(&[(1.0, 1), bad])).unwrap_err();
            assert!(
                matches!(error, EvalError::Cluster { index: 1, .. }),
                "{error}"
            );
        }
        assert!(matches!(
            bootstrap.paired(&one, &clusters(&[(1.0, 1), (1.0, 1)])),
            Err(EvalError::Unpaired { a: 1, b: 2 })
        ));
        assert!(matches!(
            bootstrap.paired(&one, &clusters(&[(1.0, 2)])),
            Err(EvalError::UnequalPair {
                index: 0,
                a: 1,
                b: 2
            })
        ));
        for (resamples, confidence) in [(0, 0.95), (10, 0.0), (10, 1.0), (10, f64::NAN)] {
            let bad = Bootstrap {
                resamples,
                confidence,
                ..Bootstrap::default()
            };
            assert!(
                matches!(bad.estimate(&one), Err(EvalError::Setting { .. })),
                "{bad:?}"
            );
        }
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
        let again: Bootstrap =
            serde_json::from_str(&serde_json::to_string(&bca).unwrap()).unwrap();
        assert_eq!(again, bca);
        let error = serde_json::from_str::<Bootstrap>(r#"{"method":"bc"}"#).unwrap_err();
        assert!(error.to_string().contains("`percentile` or `bca`"), "{error}");
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[1.0], 1.5), None);
        assert_eq!(percentile(&[3.0, 1.0], 0.25), Some(1.5));
    }
}
