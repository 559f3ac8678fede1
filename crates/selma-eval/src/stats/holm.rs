//! Holm's correction for many tests.

use crate::EvalError;

/// The p-values that remain when several tests are made at once, in the order given (Holm 1979): declaring those below 5%
/// significant is wrong about any of them with a chance of at most 5%, however the tests depend on each other.
///
/// # Errors
/// [`EvalError::Sample`] for a value that is no probability.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, EvalError> {
    if let Some(wrong) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(EvalError::Sample {
            name: "p-values",
            expected: "numbers from 0 to 1",
            found: wrong.to_string(),
        });
    }
    let mut ordered: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    ordered.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let mut highest = 0.0_f64;
    for ((_, p), left) in ordered.iter_mut().zip((1..=p_values.len()).rev()) {
        highest = highest.max((left as f64 * *p).min(1.0));
        *p = highest;
    }
    ordered.sort_by_key(|(index, _)| *index);
    Ok(ordered.into_iter().map(|(_, p)| p).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_multiplied_most() {
        assert_eq!(holm(&[0.25, 0.0625, 0.125]).unwrap(), [0.25, 0.1875, 0.25]);
        assert_eq!(holm(&[0.5, 0.75]).unwrap(), [1.0, 1.0]);
        assert_eq!(holm(&[0.03]).unwrap(), [0.03]);
        assert_eq!(holm(&[]).unwrap(), [0.0; 0]);
    }

    #[test]
    fn refuses_what_is_no_probability() {
        for wrong in [-0.1, 1.1, f64::NAN] {
            let error = holm(&[0.5, wrong]).unwrap_err();
            assert!(error.to_string().contains("p-values"), "{error}");
        }
    }
}
