//! Means on the sphere: directions are interpolated, lengths apart from them.

/// Updates whose cosine is beyond this are interpolated straight (mergekit `slerp`, DOT_THRESHOLD).
const NEARLY_PARALLEL: f64 = 0.9995;
/// mergekit's bound on the squared sine below which `nuslerp` is straight.
const COLLINEAR: f64 = 1e-16;
/// Iterations and tolerance of mergekit's `karcher`.
const ITERATIONS: usize = 10;
const TOLERANCE: f64 = 1e-5;

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// `p X + q Y`
fn combine(p: f64, x: &[f64], q: f64, y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| p * x + q * y).collect()
}

fn cosine(x: &[f64], y: &[f64], least: f64) -> f64 {
    let length = |x| {
        let norm = norm(x);
        if norm > least { norm } else { 1.0 }
    };
    (dot(x, y) / (length(x) * length(y))).clamp(-1.0, 1.0)
}

fn along_the_arc(x: &[f64], y: &[f64], t: f64, cosine: f64) -> Vec<f64> {
    let angle = cosine.acos();
    let sine = angle.sin();
    combine(
        ((1.0 - t) * angle).sin() / sine,
        x,
        (t * angle).sin() / sine,
        y,
    )
}

/// Spherical interpolation from `x` (t = 0) to `y` (t = 1), straight when they are nearly parallel
/// or opposite (mergekit `slerp.py`).
#[must_use]
pub fn slerp(x: &[f64], y: &[f64], t: f64) -> Vec<f64> {
    let cosine = cosine(x, y, 1e-8);
    if cosine.abs() > NEARLY_PARALLEL {
        return combine(1.0 - t, x, t, y);
    }
    along_the_arc(x, y, t, cosine)
}

/// Spherical interpolation that is straight only where the arc has no length (mergekit
/// `nuslerp.py` with `nuslerp_flatten`).
#[must_use]
pub fn nuslerp(x: &[f64], y: &[f64], t: f64) -> Vec<f64> {
    let cosine = cosine(x, y, 1e-7);
    if 1.0 - cosine * cosine <= COLLINEAR {
        return combine(1.0 - t, x, t, y);
    }
    along_the_arc(x, y, t, cosine)
}

/// The share of the second of two tensors: its part of the weights, one half if these cancel.
#[must_use]
pub fn share(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    match weights {
        [_, second] if total.abs() >= 1e-6 => second / total,
        _ => 0.5,
    }
}

/// The Karcher mean of the directions, found by steps along the tangent, with the mean of the
/// lengths (mergekit `karcher.py`). Tensors of no length have no direction, but shorten the mean.
#[must_use]
pub fn karcher(tensors: &[&[f64]]) -> Vec<f64> {
    let norms: Vec<f64> = tensors.iter().map(|x| norm(x)).collect();
    let units: Vec<Vec<f64>> = tensors
        .iter()
        .zip(&norms)
        .filter(|&(_, &norm)| norm > TOLERANCE)
        .map(|(x, norm)| x.iter().map(|x| x / norm).collect())
        .collect();
    let Some(first) = units.first() else {
        return vec![0.0; tensors.first().map_or(0, |x| x.len())];
    };
    if tensors.len() == 1 {
        return tensors.iter().flat_map(|x| x.iter().copied()).collect();
    }
    let share = 1.0 / units.len() as f64;
    let mut mean = vec![0.0; first.len()];
    for unit in &units {
        mean = combine(1.0, &mean, share, unit);
    }
    let length = norm(&mean);
    mean = if length < TOLERANCE {
        first.clone()
    } else {
        mean.iter().map(|x| x / length).collect()
    };
    for _ in 0..ITERATIONS {
        let mut tangent = vec![0.0; mean.len()];
        for unit in &units {
            let cosine = dot(&mean, unit).clamp(-1.0, 1.0);
            let angle = cosine.acos();
            if angle < TOLERANCE {
                continue;
            }
            let step = share * angle / angle.sin();
            for ((t, u), m) in tangent.iter_mut().zip(unit).zip(&mean) {
                *t += step * (u - cosine * m);
            }
        }
        let length = norm(&tangent);
        if length < TOLERANCE {
            break;
        }
        mean = combine(length.cos(), &mean, length.sin() / length, &tangent);
        let length = norm(&mean);
        if length > TOLERANCE {
            mean.iter_mut().for_each(|x| *x /= length);
        }
    }
    let scale = norms.iter().sum::<f64>() / norms.len() as f64;
    mean.iter().map(|x| x * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(x: &[f64], y: &[f64]) {
        assert_eq!(x.len(), y.len());
        for (x, y) in x.iter().zip(y) {
            assert!((x - y).abs() < 1e-7, "{x} {y}");
        }
    }

    #[test]
    fn interpolation_follows_the_arc() {
        let half = 0.5_f64.sqrt();
        for interpolate in [slerp, nuslerp] {
            close(&interpolate(&[1.0, 0.0], &[0.0, 1.0], 0.5), &[half, half]);
            close(&interpolate(&[1.0, 0.0], &[0.0, 1.0], 0.0), &[1.0, 0.0]);
            close(&interpolate(&[1.0, 1.0], &[3.0, 3.0], 0.25), &[1.5, 1.5]);
            close(&interpolate(&[1.0, 0.0], &[0.0, 0.0], 0.5), &[half, 0.0]);
        }
        // Nearly parallel: only one of them is straight.
        let near = [1.0, 0.02];
        close(&slerp(&[1.0, 0.0], &near, 0.5), &[1.0, 0.01]);
        assert!(nuslerp(&[1.0, 0.0], &near, 0.5)[0] > 1.00001);
    }

    #[test]
    fn the_share_is_that_of_the_weights() {
        assert_eq!(share(&[1.0, 3.0]), 0.75);
        assert_eq!(share(&[1.0, -1.0]), 0.5);
    }

    #[test]
    fn the_karcher_mean_is_the_middle_of_the_arc() {
        let half = 0.5_f64.sqrt();
        close(
            &karcher(&[&[2.0, 0.0], &[0.0, 4.0]]),
            &[3.0 * half, 3.0 * half],
        );
        close(&karcher(&[&[2.0, 1.0]]), &[2.0, 1.0]);
        close(&karcher(&[&[0.0, 0.0], &[0.0, 0.0]]), &[0.0, 0.0]);
        close(&karcher(&[&[0.0, 0.0], &[2.0, 0.0]]), &[1.0, 0.0]);
        // Opposite directions: no middle, the first one stays.
        let opposite = karcher(&[&[1.0, 0.0], &[-1.0, 0.0]]);
        assert!(opposite.iter().all(|x| x.is_finite()));
    }
}
