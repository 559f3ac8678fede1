//! The leading eigenvectors of a symmetric matrix, without the others.
//!
//! The matrix is made tridiagonal by reflections, as a full decomposition begins, too. Then only what is
//! asked for is computed: eigenvalues by bisection, their vectors by inverse iteration (what LAPACK's `dsyevx`
//! does), and the reflections are applied to these vectors alone.

use faer::{
    Conj, Mat, MatMut, MatRef, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        evd::tridiag::{tridiag_in_place, tridiag_in_place_scratch},
        householder::{
            apply_block_householder_sequence_on_the_left_in_place_scratch,
            apply_block_householder_sequence_on_the_left_in_place_with_conj,
        },
        qr::no_pivoting::factor::recommended_block_size,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Bisections that run side by side, which hides how long a division takes.
const LANES: usize = 16;

/// Eigenvalues that are nearer than this, relative to the largest, have vectors that are made orthogonal
/// to each other; those of others are orthogonal to [`RESIDUAL`] divided by this.
const CLOSE: f64 = 1e-4;

/// A vector of length 1 counts as an eigenvector when the matrix changes nothing but its length up to
/// this, relative to the largest eigenvalue.
const RESIDUAL: f64 = 1e-14;

/// Eigenvectors as columns, and their eigenvalues, the largest first.
#[derive(Debug)]
pub(crate) struct Leading {
    pub(crate) vectors: Mat<f64>,
    pub(crate) values: Vec<f64>,
    /// The eigenvalue after these, if there is one.
    pub(crate) next: Option<f64>,
}

/// The `k` largest eigenvalues of the symmetric `matrix`, of which only the lower half is read. `None` when
/// it is zero or has numbers that are not finite, or an inverse iteration does not end.
pub(crate) fn leading(mut matrix: Mat<f64>, k: usize) -> Option<Leading> {
    let n = matrix.nrows();
    if n < 2 {
        let values: Vec<f64> = matrix.diagonal().column_vector().iter().copied().collect();
        let vectors = Mat::identity(n, n);
        return values.iter().all(|x| x.is_finite()).then_some(Leading {
            vectors,
            values,
            next: None,
        });
    }
    let block = recommended_block_size::<f64>(n, n);
    let mut factors = Mat::zeros(block, n - 1);
    let mut memory = MemBuffer::new(tridiag_in_place_scratch::<f64>(
        n,
        Par::Seq,
        Default::default(),
    ));
    let stack = MemStack::new(&mut memory);
    tridiag_in_place(
        matrix.as_mut(),
        factors.as_mut(),
        Par::Seq,
        stack,
        Default::default(),
    );
    let reflections = matrix.submatrix(1, 0, n - 1, n - 1);
    let tridiagonal = Tridiagonal {
        diagonal: matrix.diagonal().column_vector().iter().copied().collect(),
        beside: reflections
            .diagonal()
            .column_vector()
            .iter()
            .copied()
            .collect(),
    };
    let Leading {
        mut vectors,
        values,
        next,
    } = tridiagonal.leading(k)?;
    let scratch =
        apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(n - 1, block, k);
    let mut memory = MemBuffer::new(scratch);
    apply_block_householder_sequence_on_the_left_in_place_with_conj(
        reflections,
        factors.as_ref(),
        Conj::No,
        vectors.subrows_mut(1, n - 1),
        Par::Seq,
        MemStack::new(&mut memory),
    );
    Some(Leading {
        vectors,
        values,
        next,
    })
}

/// A symmetric matrix with nothing but its diagonal and the entries beside it.
#[derive(Debug)]
struct Tridiagonal {
    diagonal: Vec<f64>,
    beside: Vec<f64>,
}

impl Tridiagonal {
    fn leading(&self, k: usize) -> Option<Leading> {
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
        let mut cluster = 0;
        for (j, &value) in values.iter().enumerate() {
            let before = j.checked_sub(1).and_then(|i| values.get(i));
            if before.is_none_or(|before| before - value > CLOSE * size) {
                cluster = j;
            }
            let (done, mut rest) = vectors.as_mut().split_at_col_mut(j);
            let near = done.as_ref().subcols(cluster, j - cluster);
            self.vector(
                value,
                size,
                near,
                rest.as_mut().subcols_mut(0, 1),
                &mut random,
            )?;
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
        let mut values = Vec::with_capacity(k);
        for start in (0..k).step_by(LANES) {
            let mut bounds = [(low, high); LANES];
            // A double has no more digits than that between the bounds.
            for _ in 0..64 {
                let middles = bounds.map(|(low, high)| 0.5 * (low + high));
                let counts = self.counts(&squares, &middles, least);
                let mut widest: f64 = 0.0;
                for (lane, ((bounds, middle), count)) in
                    bounds.iter_mut().zip(middles).zip(counts).enumerate()
                {
                    // As many eigenvalues are larger than the one that is sought.
                    if count > (start + lane) as f64 {
                        bounds.0 = middle;
                    } else {
                        bounds.1 = middle;
                    }
                    widest = widest.max(bounds.1 - bounds.0);
                }
                if widest <= f64::EPSILON * size {
                    break;
                }
            }
            let found = bounds.iter().map(|(low, high)| 0.5 * (low + high));
            values.extend(found.take(k - start));
        }
        values
    }

    /// How many eigenvalues are larger than each shift: the positive pivots of the shifted matrix (Sylvester).
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

    /// The eigenvector of length 1 of an eigenvalue, orthogonal to the vectors `near`; `None` if there is none.
    fn vector(
        &self,
        value: f64,
        size: f64,
        near: MatRef<'_, f64>,
        target: MatMut<'_, f64>,
        random: &mut ChaCha8Rng,
    ) -> Option<()> {
        let n = self.diagonal.len();
        let shifted = Shifted::new(self, value, f64::EPSILON * size);
        let mut x: Vec<f64> = (0..n).map(|_| random.random_range(-1.0..1.0)).collect();
        for _ in 0..5 {
            shifted.solve(&mut x);
            scale_to_one(&mut x)?;
            // Twice is enough: what the first time leaves is rounding.
            for _ in 0..2 {
                for other in near.col_iter() {
                    let other = other.try_as_col_major()?.as_slice();
                    let along = dot(other, &x);
                    x.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            scale_to_one(&mut x)?;
            if self.residual(value, &x) <= RESIDUAL * size {
                let mut target = target;
                target.as_mut().col_iter_mut().for_each(|column| {
                    column
                        .iter_mut()
                        .zip(&x)
                        .for_each(|(target, &x)| *target = x);
                });
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

/// `T - value` as a product of triangular matrices, rows exchanged where that gives the larger pivot.
#[derive(Debug)]
struct Shifted {
    steps: Vec<Step>,
}

/// One row of the upper factor, and how the row below it was made.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// One over the pivot.
    inverse: f64,
    /// The two entries right of it.
    right: [f64; 2],
    /// What of this row was taken from the next one.
    taken: f64,
    exchanged: bool,
}

impl Shifted {
    /// Pivots are lifted to `least`.
    fn new(matrix: &Tridiagonal, value: f64, least: f64) -> Self {
        let lifted = |pivot: f64| {
            if pivot.abs() < least {
                least.copysign(pivot)
            } else {
                pivot
            }
        };
        let beside = || matrix.beside.iter().copied();
        let mut diagonal = matrix.diagonal.iter().map(|x| x - value);
        let mut pivot = diagonal.next().unwrap_or(0.0);
        let mut right = beside().next().unwrap_or(0.0);
        let mut steps = Vec::with_capacity(matrix.diagonal.len());
        let after = beside().skip(1).chain(std::iter::once(0.0));
        for ((below, next), after) in beside().zip(diagonal).zip(after) {
            if below.abs() > pivot.abs() {
                let taken = pivot / below;
                steps.push(Step {
                    inverse: 1.0 / lifted(below),
                    right: [next, after],
                    taken,
                    exchanged: true,
                });
                (pivot, right) = (right - taken * next, -taken * after);
            } else {
                let own = lifted(pivot);
                let taken = below / own;
                steps.push(Step {
                    inverse: 1.0 / own,
                    right: [right, 0.0],
                    taken,
                    exchanged: false,
                });
                (pivot, right) = (next - taken * right, after);
            }
        }
        steps.push(Step {
            inverse: 1.0 / lifted(pivot),
            right: [0.0; 2],
            taken: 0.0,
            exchanged: false,
        });
        Self { steps }
    }

    /// Replaces `x` by what the shifted matrix would take to it.
    fn solve(&self, x: &mut [f64]) {
        let mut upper = x.first().copied().unwrap_or(0.0);
        for (i, step) in self.steps.iter().enumerate() {
            let [here, next] = match x.get_mut(i..i + 2) {
                Some([here, next]) => [here, next],
                _ => break,
            };
            if step.exchanged {
                *here = *next;
                upper -= step.taken * *next;
            } else {
                *here = upper;
                upper = *next - step.taken * upper;
            }
            *next = upper;
        }
        let (mut first, mut second) = (0.0, 0.0);
        for (x, step) in x.iter_mut().zip(&self.steps).rev() {
            let [one, two] = step.right;
            *x = (*x - one * first - two * second) * step.inverse;
            (first, second) = (*x, first);
        }
    }
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

#[cfg(test)]
mod tests {
    use faer::Side;

    use super::*;
    use crate::linalg::test_numbers as numbers;

    /// Against a full decomposition: eigenvalues, orthonormal vectors, and that they are eigenvectors.
    fn check(matrix: &Mat<f64>, k: usize) {
        let n = matrix.nrows();
        let full = matrix.self_adjoint_eigenvalues(Side::Lower).unwrap();
        let size = full.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        let found = leading(matrix.clone(), k).unwrap();
        assert_eq!((found.values.len(), found.vectors.shape()), (k, (n, k)));
        for (value, expected) in found.values.iter().zip(full.iter().rev()) {
            assert!(
                (value - expected).abs() < 1e-13 * n as f64 * size,
                "{value} {expected}"
            );
        }
        let vectors = &found.vectors;
        let unit = Mat::<f64>::identity(k, k);
        assert!((vectors.transpose() * vectors - unit).norm_max() < 1e-8);
        let symmetric = Mat::from_fn(n, n, |i, j| matrix[(i.max(j), i.min(j))]);
        for (vector, value) in vectors.col_iter().zip(&found.values) {
            assert!((&symmetric * vector - faer::Scale(*value) * vector).norm_l2() < 1e-11 * size);
        }
    }

    #[test]
    fn values_and_vectors_are_those_of_a_full_decomposition() {
        for (n, k) in [(2, 1), (3, 3), (40, 7), (100, 100), (130, 17)] {
            let x = numbers(n, n, n as u64);
            check(&(x.transpose() * &x), k);
            // Negative ones, too.
            check(&(&x + x.transpose()), k);
        }
    }

    #[test]
    fn equal_and_nearly_equal_values_have_vectors_of_their_own() {
        check(&Mat::identity(30, 30), 5);
        // Rank 4 of 50: all others are zero.
        let x = numbers(4, 50, 1);
        check(&(x.transpose() * &x), 9);
        let basis = numbers(60, 60, 2).qr().compute_thin_Q();
        for apart in [0.0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-5] {
            let scaled = Mat::from_fn(60, 60, |i, j| {
                basis[(i, j)] * (3.0 - (j / 7) as f64 * 0.25 + (j % 7) as f64 * apart)
            });
            check(&(scaled * basis.transpose()), 25);
        }
        // What falls off fast: most are near zero compared with the first.
        let scaled = Mat::from_fn(60, 60, |i, j| basis[(i, j)] * 0.3_f64.powi(j as i32));
        check(&(scaled * basis.transpose()), 40);
    }

    #[test]
    fn sizes_do_not_matter() {
        let x = numbers(20, 20, 3);
        let square = x.transpose() * &x;
        for size in [1e-140, 1e140] {
            check(&(faer::Scale(size) * &square), 6);
        }
    }

    #[test]
    fn without_an_answer_there_is_none() {
        for value in [0.0, f64::NAN, f64::INFINITY] {
            assert!(leading(Mat::full(9, 9, value), 2).is_none());
        }
        assert_eq!(leading(Mat::full(1, 1, 4.0), 1).unwrap().values, [4.0]);
    }
}
