//! Means on the sphere: directions are interpolated, lengths apart from them.
//!
//! All are sums of the tensors, each times a weight that follows from their inner products alone.

use ndarray::{Array1, Array2, Axis};

use super::consensus::weighted_sum;

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

/// `p X + q Y`
fn combine([p, q]: [f64; 2], x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| p * x + q * y).collect()
}

/// The inner products of two tensors, each with itself and with the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) xx: f64,
    pub(super) xy: f64,
    pub(super) yy: f64,
}

impl Pair {
    fn of(x: &[f64], y: &[f64]) -> Self {
        Self {
            xx: dot(x, x),
            xy: dot(x, y),
            yy: dot(y, y),
        }
    }

    fn cosine(self, least: f64) -> f64 {
        let length = |square: f64| {
            let norm = square.max(0.0).sqrt();
            if norm > least { norm } else { 1.0 }
        };
        (self.xy / (length(self.xx) * length(self.yy))).clamp(-1.0, 1.0)
    }
}

fn along_the_arc(t: f64, cosine: f64) -> [f64; 2] {
    let angle = cosine.acos();
    let sine = angle.sin();
    [((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine]
}

/// Spherical interpolation from `x` (t = 0) to `y` (t = 1), straight when they are nearly parallel
/// or opposite (mergekit `slerp.py`).
#[must_use]
pub fn slerp(x: &[f64], y: &[f64], t: f64) -> Vec<f64> {
    combine(slerp_weights(Pair::of(x, y), t), x, y)
}

/// What [`slerp`] multiplies the two tensors by.
pub(super) fn slerp_weights(pair: Pair, t: f64) -> [f64; 2] {
    let cosine = pair.cosine(1e-8);
    if cosine.abs() > NEARLY_PARALLEL {
        return [1.0 - t, t];
    }
    along_the_arc(t, cosine)
}

/// Spherical interpolation that is straight only where the arc has no length (mergekit
/// `nuslerp.py` with `nuslerp_flatten`).
#[must_use]
pub fn nuslerp(x: &[f64], y: &[f64], t: f64) -> Vec<f64> {
    combine(nuslerp_weights(Pair::of(x, y), t), x, y)
}

/// What [`nuslerp`] multiplies the two tensors by.
pub(super) fn nuslerp_weights(pair: Pair, t: f64) -> [f64; 2] {
    let cosine = pair.cosine(1e-7);
    if 1.0 - cosine * cosine <= COLLINEAR {
        return [1.0 - t, t];
    }
    along_the_arc(t, cosine)
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
    weighted_sum(tensors, &karcher_weights(&inner_products(tensors)))
}

/// What [`karcher`] multiplies the tensors by, given their [inner products](inner_products).
///
/// Every vector on the way is a sum of the tensors' directions and is kept as the weights of these.
pub(super) fn karcher_weights(products: &Array2<f64>) -> Vec<f64> {
    let norms: Vec<f64> = products.diag().iter().map(|x| x.max(0.0).sqrt()).collect();
    if norms.len() == 1 {
        return vec![1.0];
    }
    let inverse: Array1<f64> = norms
        .iter()
        .map(|&norm| if norm > TOLERANCE { 1.0 / norm } else { 0.0 })
        .collect();
    let Some(first) = inverse.iter().position(|&x| x > 0.0) else {
        return vec![0.0; norms.len()];
    };
    let outer = inverse.view().insert_axis(Axis(1));
    let cosines = products * &outer * &inverse;
    let length = |weights: &Array1<f64>| weights.dot(&cosines.dot(weights)).max(0.0).sqrt();
    let count = inverse.iter().filter(|&&x| x > 0.0).count();
    let share = inverse.mapv(|x| if x > 0.0 { 1.0 / count as f64 } else { 0.0 });
    let mut mean = share.clone();
    mean = match length(&mean) {
        length if length < TOLERANCE => (0..mean.len())
            .map(|at| f64::from(u8::from(at == first)))
            .collect(),
        length => mean / length,
    };
    for _ in 0..ITERATIONS {
        let mut tangent = Array1::zeros(mean.len());
        let mut back = 0.0;
        let towards = cosines.dot(&mean);
        for ((step, &share), cosine) in tangent.iter_mut().zip(&share).zip(towards) {
            let cosine = cosine.clamp(-1.0, 1.0);
            let angle = cosine.acos();
            if share == 0.0 || angle < TOLERANCE {
                continue;
            }
            *step = share * angle / angle.sin();
            back += *step * cosine;
        }
        tangent.scaled_add(-back, &mean);
        let step = length(&tangent);
        if step < TOLERANCE {
            break;
        }
        mean = mean * step.cos() + tangent * (step.sin() / step);
        let length = length(&mean);
        if length > TOLERANCE {
            mean /= length;
        }
    }
    let scale = norms.iter().sum::<f64>() / norms.len() as f64;
    (mean * inverse * scale).to_vec()
}

/// `<X_i, X_j>` of all pairs.
pub(super) fn inner_products(tensors: &[&[f64]]) -> Array2<f64> {
    let count = tensors.len();
    let tensor = |at: usize| tensors.get(at).copied().unwrap_or_default();
    Array2::from_shape_fn((count, count), |(i, j)| dot(tensor(i), tensor(j)))
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
