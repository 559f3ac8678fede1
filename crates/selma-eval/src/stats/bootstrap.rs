//! Percentile bootstrap over clusters.

#![allow(
    clippy::indexing_slicing,
    reason = "positions are drawn or computed below the length of a slice that is not empty"
)]

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::{Deserialize, Serialize};

use super::permutation;
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

/// Settings of the percentile bootstrap (Efron 1979; Davison & Hinkley 1997, section 5.3).
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
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 2000,
            confidence: 0.95,
            seed: 0,
        }
    }
}

impl Bootstrap {
    /// The mean over all values of all clusters, with the percentile interval over resampled clusters.
    ///
    /// With a single cluster there is nothing to resample and the interval has no width: look at
    /// [`Estimate::clusters`] before trusting a narrow interval.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without clusters, [`EvalError::Cluster`] for a sum that is not finite or a count of 0,
    /// [`EvalError::Setting`] for settings that make no sense.
    pub fn estimate(&self, clusters: &[Cluster]) -> Result<Estimate, EvalError> {
        self.check(clusters)?;
        let (low, high) = self.interval(clusters);
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
        let (low, high) = self.interval(&differences);
        Ok(Paired {
            difference: mean(differences.iter()),
            low,
            high,
            p: permutation::sign_flip(&differences, self.resamples, self.seed),
            n: values(&differences),
            clusters: differences.len(),
        })
    }

    /// The mean of resample `b`: as many clusters as there are, drawn with replacement.
    fn resample(&self, clusters: &[Cluster], b: u32) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(b));
        mean((0..clusters.len()).map(|_| &clusters[below(&mut rng, clusters.len())]))
    }

    fn interval(&self, clusters: &[Cluster]) -> (f64, f64) {
        let mut means: Vec<f64> = (0..self.resamples)
            .map(|b| self.resample(clusters, b))
            .collect();
        means.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        (quantile(&means, tail), quantile(&means, 1.0 - tail))
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

/// A number below `n`, by multiplication (Lemire 2019) without its rejection step: the bias is below n / 2^64.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
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
    fn draws_are_uniform() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut rng, 7)] += 1;
        }
        // Six standard deviations of a binomial count.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 560),
            "{counts:?}"
        );
    }

    #[test]
    fn a_resample_depends_on_its_number_and_the_seed_alone() {
        let data = clusters(&[(1.0, 2), (0.0, 3), (4.0, 4), (2.0, 5)]);
        let bootstrap = Bootstrap::default();
        let forwards: Vec<f64> = (0..50).map(|b| bootstrap.resample(&data, b)).collect();
        let backwards: Vec<f64> = (0..50)
            .rev()
            .map(|b| bootstrap.resample(&data, b))
            .rev()
            .collect();
        assert_eq!(forwards, backwards);
        let threads: Vec<f64> = std::thread::scope(|scope| {
            let data = &data;
            let handles: Vec<_> = (0..50)
                .map(|b| scope.spawn(move || bootstrap.resample(data, b)))
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
                .map(|b| other.resample(&data, b))
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
                seed: 0,
            };
            assert!(
                matches!(bad.estimate(&one), Err(EvalError::Setting { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[1.0], 1.5), None);
        assert_eq!(percentile(&[3.0, 1.0], 0.25), Some(1.5));
    }
}
