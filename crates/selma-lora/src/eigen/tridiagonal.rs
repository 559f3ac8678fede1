//! Eigenvalues of a tridiagonal matrix by bisection, and their vectors by inverse iteration.

use std::array::from_fn;

use faer::Mat;
use pulp::Arch;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Leading,
    shifted::{Lanes, Shifted, WIDTH},
};

/// Bisections that run side by side, which hides how long a division takes.
const LANES: usize = 16;

/// Eigenvalues that are nearer than this, relative to the largest, have vectors that are made orthogonal
/// to each other; those of others are orthogonal to [`RESIDUAL`] divided by this.
const CLOSE: f64 = 1e-4;

/// A vector of length 1 counts as an eigenvector when the matrix changes nothing but its length up to
/// this, relative to the largest eigenvalue.
const RESIDUAL: f64 = 1e-14;

/// A symmetric matrix with nothing but its diagonal and the entries beside it.
#[derive(Debug)]
pub(super) struct Tridiagonal {
    pub(super) diagonal: Vec<f64>,
    pub(super) beside: Vec<f64>,
}

impl Tridiagonal {
    /// The `k` largest eigenvalues and their vectors; `None` when it is zero or not finite, or an inverse iteration does not end.
    pub(super) fn leading(&self, k: usize) -> Option<Leading<f64>> {
        let (low, high) = self.bounds();
        let size = low.abs().max(high.abs());
        if !size.is_finite() {
            return None;
        }
        let n = self.diagonal.len();
        let mut values = self.largest(n.min(k + 1), low, high);
        let next = if values.len() > k { values.pop() } else { None };
        let mut vectors = Mat::zeros(n, k);
        // The same start on every run.
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut before = f64::INFINITY;
        let mut cluster = 0;
        let mut sought = Vec::with_capacity(k);
        for (column, &value) in values.iter().enumerate() {
            if before - value > CLOSE * size {
                cluster = column;
            }
            before = value;
            sought.push(Sought {
                value,
                column,
                cluster,
            });
        }
        for sought in sought.chunks(WIDTH) {
            self.vectors(sought, size, &mut vectors, &mut random)?;
        }
        Some(Leading {
            vectors,
            values,
            next,
        })
    }

    /// Between which all eigenvalues are (Gershgorin).
    fn bounds(&self) -> (f64, f64) {
        let before = std::iter::once(&0.0).chain(&self.beside);
        let after = self.beside.iter().chain(std::iter::once(&0.0));
        let mut bounds = (f64::INFINITY, f64::NEG_INFINITY);
        for ((&x, before), after) in self.diagonal.iter().zip(before).zip(after) {
            let radius = before.abs() + after.abs();
            if !(x + radius).is_finite() {
                return (f64::NAN, f64::NAN);
            }
            bounds = (bounds.0.min(x - radius), bounds.1.max(x + radius));
        }
        bounds
    }

    /// The largest eigenvalues, the largest first, by bisection.
    fn largest(&self, k: usize, low: f64, high: f64) -> Vec<f64> {
        let size = low.abs().max(high.abs());
        let squares: Vec<f64> = std::iter::once(0.0)
            .chain(self.beside.iter().map(|x| x * x))
            .collect();
        // A pivot that is smaller counts as this, so that no quotient is infinite.
        let least = squares.iter().fold(1.0, |x: f64, y| x.max(*y)) * f64::MIN_POSITIVE;
        let arch = Arch::new();
        let (mut lows, mut highs) = (vec![low; k], vec![high; k]);
        for start in (0..k).step_by(LANES) {
            // A double has no more digits than that between the bounds.
            for _ in 0..64 {
                let bounds = lows.iter().zip(&highs).map(|(&low, &high)| (low, high));
                let sought: Vec<(f64, f64)> = bounds.skip(start).take(LANES).collect();
                let mut widths = sought.iter().map(|(low, high)| high - low);
                if widths.all(|width| width <= f64::EPSILON * size) {
                    break;
                }
                let shifts = between(&sought);
                let counts = arch.dispatch(|| self.counts(&squares, &shifts, least));
                // They say something about those that are sought later, too.
                arch.dispatch(|| narrow(&mut lows, &mut highs, &shifts, &counts));
            }
        }
        let bounds = lows.iter().zip(&highs);
        bounds.map(|(low, high)| 0.5 * (low + high)).collect()
    }

    /// How many eigenvalues are larger than each shift: the positive pivots of the shifted matrix (Sylvester).
    #[inline(always)]
    fn counts(&self, squares: &[f64], shifts: &[f64; LANES], least: f64) -> [f64; LANES] {
        let mut counts = [0.0; LANES];
        let mut pivots = [1.0; LANES];
        for (&x, &square) in self.diagonal.iter().zip(squares) {
            for ((pivot, count), shift) in pivots.iter_mut().zip(&mut counts).zip(shifts) {
                let next = x - shift - square / *pivot;
                // Not zero, by which the next one would be divided.
                *pivot = if next.abs() < least { -least } else { next };
                *count += if *pivot > 0.0 { 1.0 } else { 0.0 };
            }
        }
        counts
    }

    /// The eigenvectors of a few eigenvalues, of length 1 and orthogonal to those before them that are near; `None` if there are none.
    fn vectors(
        &self,
        sought: &[Sought],
        size: f64,
        vectors: &mut Mat<f64>,
        random: &mut ChaCha8Rng,
    ) -> Option<()> {
        let arch = Arch::new();
        let last = sought.last()?.value;
        let values = from_fn(|lane| sought.get(lane).map_or(last, |sought| sought.value));
        let shifted = arch.dispatch(|| Shifted::new(self, values, f64::EPSILON * size));
        let start = self.diagonal.iter();
        let mut x: Vec<Lanes> = start
            .map(|_| from_fn(|_| random.random_range(-1.0..1.0)))
            .collect();
        for _ in 0..5 {
            arch.dispatch(|| shifted.solve(&mut x));
            let mut found = true;
            for (lane, sought) in sought.iter().enumerate() {
                let lanes = x.iter().map(|lanes| lanes.get(lane).copied());
                let mut vector: Vec<f64> = lanes.map(Option::unwrap_or_default).collect();
                scale_to_one(&mut vector)?;
                let (before, rest) = vectors.as_mut().split_at_col_mut(sought.column);
                let near = before.as_ref();
                // Twice is enough: what the first time leaves is rounding.
                for _ in 0..2 {
                    for other in near.col_iter().skip(sought.cluster) {
                        let other = other.try_as_col_major()?.as_slice();
                        let along = dot(other, &vector);
                        let entries = vector.iter_mut().zip(other);
                        entries.for_each(|(x, y)| *x -= along * y);
                    }
                }
                scale_to_one(&mut vector)?;
                found &= self.residual(sought.value, &vector) <= RESIDUAL * size;
                let column = rest.col_iter_mut().next()?;
                for ((to, lanes), &entry) in column.iter_mut().zip(&mut x).zip(&vector) {
                    *to = entry;
                    *lanes.get_mut(lane)? = entry;
                }
            }
            if found {
                return Some(());
            }
        }
        None
    }

    /// The length of `(T - value) x`.
    fn residual(&self, value: f64, x: &[f64]) -> f64 {
        let after = x.iter().skip(1).chain(std::iter::once(&0.0));
        let below = self.beside.iter().chain(std::iter::once(&0.0));
        let mut before = 0.0;
        let mut sum = 0.0;
        for (((&d, &x), &after), &below) in self.diagonal.iter().zip(x).zip(after).zip(below) {
            let here = (d - value) * x + before + below * after;
            before = below * x;
            sum += here * here;
        }
        sum.sqrt()
    }
}

/// Where to count next, given the bounds of at most [`LANES`] eigenvalues: at even distances between bounds, at as many places as eigenvalues
/// share them, or a multiple of that where fewer are sought than can be counted at once. What is left counts at zero, which tells something as well.
fn between(bounds: &[(f64, f64)]) -> [f64; LANES] {
    let each = LANES / bounds.len().max(1);
    let mut shifts = [0.0; LANES];
    let mut free = shifts.iter_mut();
    for shared in bounds.chunk_by(|x, y| x == y) {
        let Some((low, high)) = shared.first() else {
            continue;
        };
        let count = each * shared.len();
        for (i, shift) in (1..=count).zip(&mut free) {
            *shift = low + (high - low) * (i as f64 / (count + 1) as f64);
        }
    }
    shifts
}

/// What so many larger eigenvalues than each shift say about the bounds of all.
#[inline(always)]
fn narrow(lows: &mut [f64], highs: &mut [f64], shifts: &[f64; LANES], counts: &[f64; LANES]) {
    for (&shift, &count) in shifts.iter().zip(counts) {
        let count = count as usize;
        for low in lows.iter_mut().take(count) {
            *low = if shift > *low { shift } else { *low };
        }
        for high in highs.iter_mut().skip(count) {
            *high = if shift < *high { shift } else { *high };
        }
    }
}

/// An eigenvalue, in which column its vector belongs, and in which those that are near begin.
#[derive(Debug, Clone, Copy)]
struct Sought {
    value: f64,
    column: usize,
    cluster: usize,
}

/// `None` for a vector that is zero or not finite.
fn scale_to_one(x: &mut [f64]) -> Option<()> {
    // By the largest entry first: the squares of what a solution grows to may be infinite.
    let largest = x.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    x.iter_mut().for_each(|x| *x /= largest);
    let length = dot(x, x).sqrt();
    x.iter_mut().for_each(|x| *x /= length);
    (largest.is_finite() && length.is_finite() && largest > 0.0).then_some(())
}

/// In several sums, which the processor adds up side by side.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (y_chunks, y_rest) = y.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(x, y)| x * y);
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}
