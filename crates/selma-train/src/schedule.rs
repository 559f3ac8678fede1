//! Learning rates over time.

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
    fn rises_then_falls() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(step, 100, 1.0)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12);
        assert!((rates[9] - 1.0).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(rates[99] < 1e-3);
    }
}
