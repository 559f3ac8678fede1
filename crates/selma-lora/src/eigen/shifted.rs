//! A tridiagonal matrix, shifted by several eigenvalues side by side, and linear equations with it.

use super::tridiagonal::Tridiagonal;

/// Vectors that are looked for side by side, which hides how long a division takes.
pub(super) const WIDTH: usize = 8;

/// A number for each of them.
pub(super) type Lanes = [f64; WIDTH];

/// `T - value` for several values as products of triangular matrices, rows exchanged where that gives the larger pivot.
#[derive(Debug)]
pub(super) struct Shifted {
    steps: Vec<Step>,
}

/// One row of the upper factors, and how the row below it was made.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// One over the pivot.
    inverse: Lanes,
    /// The two entries right of it.
    right: [Lanes; 2],
    /// What of this row was taken from the next one.
    taken: Lanes,
    exchanged: [bool; WIDTH],
}

impl Shifted {
    /// Pivots are lifted to `least`.
    #[inline(always)]
    pub(super) fn new(matrix: &Tridiagonal, values: Lanes, least: f64) -> Self {
        let mut beside = matrix.beside.iter().copied();
        let mut diagonal = matrix.diagonal.iter().copied();
        let first = diagonal.next().unwrap_or(0.0);
        let mut pivots: Lanes = [0.0; WIDTH];
        for (pivot, value) in pivots.iter_mut().zip(&values) {
            *pivot = first - value;
        }
        let mut below = beside.next().unwrap_or(0.0);
        let mut rights = [below; WIDTH];
        let mut steps = Vec::with_capacity(matrix.diagonal.len());
        // The last row has none below it.
        for next in diagonal.map(Some).chain([None]) {
            let after = beside.next().unwrap_or(0.0);
            let mut step = Step {
                inverse: [0.0; WIDTH],
                right: [[0.0; WIDTH]; 2],
                taken: [0.0; WIDTH],
                exchanged: [false; WIDTH],
            };
            let below_here = if next.is_some() { below } else { 0.0 };
            let next = next.unwrap_or(0.0);
            let [one, two] = &mut step.right;
            let right = one.iter_mut().zip(two);
            let kept = step.inverse.iter_mut().zip(right).zip(&mut step.taken);
            let kept = kept.zip(&mut step.exchanged);
            let rest = pivots.iter_mut().zip(&mut rights).zip(&values);
            for ((((inverse, (one, two)), taken), exchanged), ((pivot, right), value)) in
                kept.zip(rest)
            {
                let next = next - value;
                *exchanged = below_here.abs() > pivot.abs();
                let (own, other) = if *exchanged {
                    (below_here, *pivot)
                } else {
                    (*pivot, below_here)
                };
                let own = if own.abs() < least {
                    least.copysign(own)
                } else {
                    own
                };
                *inverse = 1.0 / own;
                *taken = other * *inverse;
                (*one, *two) = if *exchanged {
                    (next, after)
                } else {
                    (*right, 0.0)
                };
                let (first, second) = if *exchanged {
                    (*right, 0.0)
                } else {
                    (next, after)
                };
                *pivot = first - *taken * *one;
                *right = second - *taken * *two;
            }
            steps.push(step);
            below = after;
        }
        Self { steps }
    }

    /// Replaces the vectors `x` by what the shifted matrices would take to them.
    #[inline(always)]
    pub(super) fn solve(&self, x: &mut [Lanes]) {
        let mut uppers = x.first().copied().unwrap_or_default();
        for (i, step) in self.steps.iter().enumerate() {
            let Some([here, next]) = x.get_mut(i..i + 2) else {
                break;
            };
            let rows = uppers.iter_mut().zip(here).zip(next);
            for (((upper, here), next), (taken, exchanged)) in
                rows.zip(step.taken.iter().zip(&step.exchanged))
            {
                let (top, bottom) = if *exchanged {
                    (*next, *upper)
                } else {
                    (*upper, *next)
                };
                *here = top;
                *upper = bottom - taken * top;
                *next = *upper;
            }
        }
        let (mut first, mut second) = ([0.0; WIDTH], [0.0; WIDTH]);
        for (x, step) in x.iter_mut().zip(&self.steps).rev() {
            let [one, two] = &step.right;
            let solved = first.iter_mut().zip(&mut second);
            let entries = x.iter_mut().zip(solved).zip(&step.inverse);
            for (((x, (first, second)), inverse), (one, two)) in entries.zip(one.iter().zip(two)) {
                *x = (*x - one * *first - two * *second) * inverse;
                (*first, *second) = (*x, *first);
            }
        }
    }
}
