//! Means over values that come in clusters.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Interval, permutation};
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

    fn interval_of_mean(&self, clusters: &[Cluster]) -> Result<Interval, EvalError> {
        let of = |picked: &[usize]| {
            let picked = picked.iter().filter_map(|&index| clusters.get(index));
            Some(mean(picked))
        };
        self.interval(clusters.len(), of)?
            .ok_or(EvalError::Empty { what: "clusters" })
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
}
