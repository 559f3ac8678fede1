//! Arithmetic on samples, in f64.

/// The sum of the terms, each a factor and a slice: `[len of the first]`.
pub(super) fn weighted(terms: &[(f64, &[f32])]) -> Vec<f32> {
    let mut sum = vec![0.0_f64; terms.first().map_or(0, |(_, values)| values.len())];
    for (weight, values) in terms {
        for (sum, value) in sum.iter_mut().zip(*values) {
            *sum += weight * f64::from(*value);
        }
    }
    sum.into_iter().map(|value| value as f32).collect()
}

/// Adds noise of this deviation. None is drawn for a deviation of zero.
pub(super) fn add_noise(sample: &mut [f32], deviation: f64, noise: &mut dyn FnMut(&mut [f32])) {
    if deviation > 0.0 {
        let mut extra = vec![0.0; sample.len()];
        noise(&mut extra);
        for (x, n) in sample.iter_mut().zip(extra) {
            *x += (deviation * f64::from(n)) as f32;
        }
    }
}

/// Puts the newest model output in front of the ones before and forgets all but `keep`.
pub(super) fn remember(outputs: &mut Vec<Vec<f32>>, newest: Vec<f32>, keep: usize) {
    outputs.insert(0, newest);
    outputs.truncate(keep);
}

/// A value of a predicted clean sample, within the bound if there is one.
pub(super) fn clipped(clean: f64, bound: Option<f64>) -> f64 {
    bound.map_or(clean, |bound| clean.clamp(-bound, bound))
}
