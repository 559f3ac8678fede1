//! Quantiles.

#![allow(
    clippy::indexing_slicing,
    reason = "positions are computed below the length of a slice that is not empty"
)]

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

/// As [`percentile`], of values in order; there is at least one, and `q` is from 0 to 1.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len() - 1;
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let share = position - below as f64;
    sorted[below] + (sorted[above] - sorted[below]) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[1.0], 1.5), None);
        assert_eq!(percentile(&[3.0, 1.0], 0.25), Some(1.5));
    }
}
