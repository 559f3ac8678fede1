//! Bias-corrected and accelerated intervals (Efron 1987; Davison & Hinkley 1997, section 5.3.2), as in
//! `scipy.stats.bootstrap`.

use statrs::distribution::{ContinuousCDF, Normal};

/// The two quantiles of the sorted replicates that are the ends of the interval, for `tail` outside of it on each side.
///
/// `without_one` is the statistic with each unit left out in turn; its skewness is the acceleration.
pub(super) fn levels(
    observed: f64,
    replicates: &[f64],
    without_one: &[f64],
    tail: f64,
) -> [f64; 2] {
    let normal = Normal::standard();
    let bias = normal.inverse_cdf(share_below(observed, replicates));
    let acceleration = acceleration(without_one);
    [tail, 1.0 - tail].map(|level| {
        let shifted = bias + normal.inverse_cdf(level);
        let stretch = 1.0 - acceleration * shifted;
        if stretch > 0.0 {
            normal.cdf(bias + shifted / stretch)
        } else {
            // Beyond the pole of the formula, which very skewed samples reach: the limit before it.
            f64::from(u8::from(shifted > 0.0))
        }
    })
}

/// The share of replicates below the statistic itself, equal ones counting half; never 0 or 1, which would have no quantile.
fn share_below(observed: f64, replicates: &[f64]) -> f64 {
    let n = replicates.len() as f64;
    let below = replicates.iter().filter(|value| **value < observed).count() as f64;
    let equal = replicates
        .iter()
        .filter(|value| **value == observed)
        .count() as f64;
    ((below + equal / 2.0) / n).clamp(0.5 / n, 1.0 - 0.5 / n)
}

/// A sixth of the skewness of the leave-one-out values; 0 if they do not vary.
fn acceleration(without_one: &[f64]) -> f64 {
    let mean = without_one.iter().sum::<f64>() / without_one.len() as f64;
    let power = |exponent| -> f64 {
        without_one
            .iter()
            .map(|value| (mean - value).powi(exponent))
            .sum()
    };
    let acceleration = power(3) / (6.0 * power(2).powf(1.5));
    if acceleration.is_finite() {
        acceleration
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bias_and_skewness_it_is_the_percentile_interval() {
        let [low, high] = levels(2.0, &[0.0, 1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0], 0.025);
        assert!((low - 0.025).abs() < 1e-9 && (high - 0.975).abs() < 1e-9);
    }

    #[test]
    fn nothing_to_resample_changes_nothing() {
        for without_one in [&[][..], &[1.0], &[1.0, 1.0]] {
            let [low, high] = levels(1.0, &[1.0; 10], without_one, 0.025);
            assert!((low - 0.025).abs() < 1e-9 && (high - 0.975).abs() < 1e-9);
        }
    }

    #[test]
    fn levels_stay_between_0_and_1() {
        // One value of a thousand: an acceleration of about 5, far beyond the pole.
        let mut without_one = vec![0.001; 999];
        without_one.push(0.0);
        for observed in [-1.0, 0.5, 2.0] {
            let [low, high] = levels(observed, &[0.0, 0.5, 1.0], &without_one, 0.025);
            assert!(
                0.0 <= low && low <= high && high <= 1.0,
                "{observed}: {low} {high}"
            );
        }
    }
}
