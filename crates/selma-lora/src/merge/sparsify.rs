//! Sparsifiers: which entries of one adapter's tensor stay, and how the rest makes up for the others.
//!
//! All work in place on the entries of one tensor in any order, so that a trainer can call them on
//! its own buffers.

use std::cmp::Ordering;

/// What a sparsifier does about the entries it dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// Nothing.
    None,
    /// Divides by the density, as the DARE paper (arXiv 2311.03099) and PEFT do.
    Density,
    /// Restores the sum of magnitudes, as mergekit does (`rescale_norm="l1"`).
    Magnitudes,
}

/// Keeps the `floor(density * n)` entries of largest magnitude, at least `least`. Of equal
/// magnitudes the earlier ones stay.
pub fn magnitude(values: &mut [f64], density: f64, least: usize) {
    if density >= 1.0 {
        return;
    }
    let kept = ((density * values.len() as f64) as usize).max(least);
    for index in ascending(values, values.len().saturating_sub(kept)) {
        if let Some(value) = values.get_mut(index) {
            *value = 0.0;
        }
    }
}

/// Drops the `floor(gamma * n)` entries of largest magnitude and then the smallest until
/// `floor(density * n)` are left; fewer of the largest where both do not fit (mergekit
/// `magnitude_outliers`, arXiv 2312.06795).
pub fn outliers(values: &mut [f64], density: f64, gamma: f64) {
    if density >= 1.0 {
        return;
    }
    let count = values.len();
    let kept = (density * count as f64) as usize;
    let top = (gamma * count as f64) as usize;
    let bottom = count.saturating_sub(kept + top);
    let order = ascending(values, count);
    let dropped = order
        .iter()
        .enumerate()
        .filter(|(position, _)| *position < bottom || *position >= bottom + kept);
    for (_, &index) in dropped {
        if let Some(value) = values.get_mut(index) {
            *value = 0.0;
        }
    }
}

/// The indices of the `count` smallest magnitudes; in ascending order when these are all.
fn ascending(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let size = |index: &usize| values.get(*index).map_or(0.0, |x| x.abs());
    // Of equal magnitudes the later ones count as smaller.
    let compare =
        |x: &usize, y: &usize| -> Ordering { size(x).total_cmp(&size(y)).then_with(|| y.cmp(x)) };
    if count >= order.len() {
        order.sort_unstable_by(compare);
    } else {
        order.select_nth_unstable_by(count, compare);
        order.truncate(count);
    }
    order
}

/// The probabilities of DELLA (arXiv 2406.11617, mergekit `della_magprune`) with which the entries
/// of a row stay: from `density - epsilon` for the smallest magnitude of the row to
/// `density + epsilon` for the largest, in equal steps.
#[must_use]
pub fn della_probabilities(row: &[f64], density: f64, epsilon: f64) -> Vec<f64> {
    let mut probabilities = vec![density; row.len()];
    if row.len() < 2 {
        return probabilities;
    }
    let steps = (row.len() - 1) as f64;
    for (rank, index) in ascending(row, row.len()).into_iter().enumerate() {
        if let Some(probability) = probabilities.get_mut(index) {
            *probability = density - epsilon + 2.0 * epsilon * rank as f64 / steps;
        }
    }
    probabilities
}

/// Drops the entries that a mask does not keep and rescales the others.
pub fn masked(values: &mut [f64], mask: &[bool], density: f64, rescale: Rescale) {
    let before = size(values);
    for (value, &keep) in values.iter_mut().zip(mask) {
        if !keep {
            *value = 0.0;
        }
    }
    rescaled(values, before, density, rescale);
}

/// The sum of magnitudes.
#[must_use]
pub fn size(values: &[f64]) -> f64 {
    values.iter().map(|x| x.abs()).sum()
}

/// Makes up for what was dropped of entries that had the [`size`] `before`.
pub fn rescaled(values: &mut [f64], before: f64, density: f64, rescale: Rescale) {
    let factor = match rescale {
        Rescale::None => return,
        Rescale::Density => 1.0 / density,
        Rescale::Magnitudes => {
            let after = size(values);
            // mergekit's threshold, below which a norm counts as zero.
            if before < 1e-7 || after < 1e-7 {
                return;
            }
            before / after
        }
    };
    values.iter_mut().for_each(|x| *x *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay() {
        let all = [3.0, -1.0, 0.5, -4.0, 2.0];
        let pruned = |density, least| {
            let mut values = all;
            magnitude(&mut values, density, least);
            values
        };
        assert_eq!(pruned(0.5, 0), [3.0, 0.0, 0.0, -4.0, 0.0]);
        assert_eq!(pruned(0.1, 0), [0.0; 5]);
        assert_eq!(pruned(0.1, 1), [0.0, 0.0, 0.0, -4.0, 0.0]);
        assert_eq!(pruned(1.0, 0), all);
        let mut ties = [1.0, -1.0, 1.0];
        magnitude(&mut ties, 0.4, 0);
        assert_eq!(ties, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn outliers_go_first() {
        let mut values = [3.0, -1.0, 0.5, -4.0, 2.0];
        outliers(&mut values, 0.4, 0.2);
        assert_eq!(values, [3.0, 0.0, 0.0, 0.0, 2.0]);
        // Where the density leaves no room, fewer outliers go.
        let mut values = [3.0, -1.0, 0.5, -4.0, 2.0];
        outliers(&mut values, 0.8, 0.9);
        assert_eq!(values, [3.0, -1.0, 0.5, 0.0, 2.0]);
        let mut short = [1.0, 2.0];
        outliers(&mut short, 0.5, 0.01);
        assert_eq!(short, [0.0, 2.0]);
    }

    #[test]
    fn larger_entries_are_likelier_to_stay() {
        let probabilities = della_probabilities(&[-3.0, 0.1, 1.0], 0.5, 0.2);
        for (found, expected) in probabilities.iter().zip([0.7, 0.3, 0.5]) {
            assert!((found - expected).abs() < 1e-12);
        }
        assert_eq!(della_probabilities(&[5.0], 0.5, 0.2), [0.5]);
    }

    #[test]
    fn what_is_left_makes_up_for_the_rest() {
        let mask = [true, false, true, false];
        let with = |rescale| {
            let mut values = [1.0, 2.0, -3.0, 4.0];
            masked(&mut values, &mask, 0.5, rescale);
            values
        };
        assert_eq!(with(Rescale::None), [1.0, 0.0, -3.0, 0.0]);
        assert_eq!(with(Rescale::Density), [2.0, 0.0, -6.0, 0.0]);
        assert_eq!(with(Rescale::Magnitudes), [2.5, 0.0, -7.5, 0.0]);
        let mut zero = [0.0; 4];
        masked(&mut zero, &mask, 0.5, Rescale::Magnitudes);
        assert_eq!(zero, [0.0; 4]);
    }
}
