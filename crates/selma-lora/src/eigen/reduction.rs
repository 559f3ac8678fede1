//! A symmetric matrix made tridiagonal by reflections, a few at a time.
//!
//! What the reflections change is put off: the rest of the matrix is read once for each of them, where it would have to be written
//! as well, and changed by one product of matrices for several (LAPACK's `dsytrd`). Most of that time the matrix comes from the
//! second or third level of the cache, and reading is what takes long.

use std::array::from_fn;

use faer::{
    Accum, ColRef, Mat, MatRef, Par,
    linalg::{
        householder::make_householder_in_place,
        matmul::{
            matmul as multiply,
            triangular::{BlockStructure, matmul},
        },
        triangular_solve::solve_upper_triangular_in_place,
    },
    unzip, zip,
};
use pulp::{Arch, Simd, WithSimd};

use super::tridiagonal::Tridiagonal;
use crate::number::{Number, cast};

/// Reflections between two changes of the matrix. With more of them, taking into account what has been put off takes longer.
const PUT_OFF: usize = 8;

/// Reflections that are applied to vectors at once.
const AT_ONCE: usize = 32;

/// Rows are filled up with zeros to a multiple of this: as many doubles are in a line of the cache and in a register.
const LINE: usize = 8;

/// Columns that are multiplied while a part of a vector is in registers.
const COLUMNS: usize = 4;

/// `H_0 H_1 .. T .. H_1 H_0` with the tridiagonal `T` and reflections `H`.
#[derive(Debug)]
pub(super) struct Reduction {
    pub(super) tridiagonal: Tridiagonal,
    /// `H_j = I - 2 v v^T / (v^T v)` of the column `v`, which is zero down to row `j`; for a column of zeros it is `I`.
    reflections: Mat<f64>,
}

impl Reduction {
    /// Of the symmetric `matrix`, of which only the lower half is read.
    pub(super) fn new<T: Number>(matrix: MatRef<'_, T>) -> Self {
        let n = matrix.nrows();
        let size = n.next_multiple_of(LINE);
        // Above the diagonal are zeros all the time.
        let mut rest = Mat::zeros(size, size);
        for (j, (to, from)) in rest.col_iter_mut().zip(matrix.col_iter()).enumerate() {
            let (from, to) = (from.subrows(j, n - j), to.subrows_mut(j, n - j));
            zip!(to, from).for_each(|unzip!(to, from)| *to = from.wide());
        }
        let mut diagonal = Vec::with_capacity(n);
        let mut beside = Vec::with_capacity(n);
        let mut reflections = Mat::zeros(size, n);
        // What was put off is `- left right^T`: columns `v w` of one are `w v` of the other.
        let mut left = Mat::zeros(size, 2 * PUT_OFF);
        let mut right = Mat::zeros(size, 2 * PUT_OFF);
        let mut product = Mat::zeros(size, 1);
        for start in (0..n).step_by(PUT_OFF) {
            let end = n.min(start + PUT_OFF);
            for j in start..end {
                let done = 2 * (j - start);
                let mut column = rest.subcols_mut(j, 1).subrows_mut(j, size - j);
                multiply(
                    column.as_mut(),
                    Accum::Add,
                    left.submatrix(j, 0, size - j, done),
                    right.submatrix(j, 0, 1, done).transpose(),
                    -1.0,
                    Par::Seq,
                );
                let (at, below) = column.col_mut(0).split_at_row_mut(1);
                diagonal.extend(at.iter().copied());
                if j + 1 == n {
                    break;
                }
                let (head, mut tail) = below.split_at_row_mut(1);
                let mut tau = f64::INFINITY;
                for head in head.iter_mut() {
                    tau = make_householder_in_place(head, tail.as_mut()).tau;
                    beside.push(*head);
                }
                if tau.is_finite() {
                    let v = reflections.col_mut(j).subrows_mut(j + 1, size - j - 1);
                    let (mut one, mut essential) = v.split_at_row_mut(1);
                    one.fill(1.0);
                    essential.copy_from(tail);
                }
                let v = reflections.col(j);
                symmetric_times(rest.as_ref(), v, j + 1, &mut product);
                product.subrows_mut(0, j + 1).fill(0.0);
                let (below, under) = (size - j - 1, v.subrows(j + 1, size - j - 1));
                let along = right.submatrix(j + 1, 0, below, done).transpose() * under;
                multiply(
                    product.subrows_mut(j + 1, below),
                    Accum::Add,
                    left.submatrix(j + 1, 0, below, done),
                    along.as_mat(),
                    -1.0,
                    Par::Seq,
                );
                let mut w = product.col_mut(0);
                let along = 0.5 * (v.transpose() * w.as_ref()) / tau;
                let by = 1.0 / tau;
                zip!(w.as_mut(), v).for_each(|unzip!(w, v)| *w = (*w - along * v) * by);
                let w = w.as_ref();
                for (side, [x, y]) in [(&mut left, [v, w]), (&mut right, [w, v])] {
                    side.col_mut(done).copy_from(x);
                    side.col_mut(done + 1).copy_from(y);
                }
            }
            matmul(
                rest.submatrix_mut(end, end, size - end, size - end),
                BlockStructure::TriangularLower,
                Accum::Add,
                left.subrows(end, size - end),
                BlockStructure::Rectangular,
                right.subrows(end, size - end).transpose(),
                BlockStructure::Rectangular,
                -1.0,
                Par::Seq,
            );
        }
        Self {
            tridiagonal: Tridiagonal { diagonal, beside },
            reflections,
        }
    }

    /// Applies the reflections to vectors, the last one first: from eigenvectors of the tridiagonal matrix to those of the whole.
    pub(super) fn reflect<T: Number>(&self, vectors: &mut Mat<T>) {
        let n = vectors.nrows();
        for start in (0..n).step_by(AT_ONCE).rev() {
            let count = AT_ONCE.min(n - start);
            // `H_0 H_1 .. = I - V F^-1 V^T` with the upper half of `V^T V` as `F`, its diagonal halved.
            let v: Mat<T> = cast(self.reflections.submatrix(start, start, n - start, count));
            let mut factor = v.transpose() * &v;
            for value in factor.diagonal_mut().column_vector_mut().iter_mut() {
                *value = match value.wide() {
                    0.0 => T::of(1.0),
                    square => T::of(0.5 * square),
                };
            }
            let mut vectors = vectors.subrows_mut(start, n - start);
            let mut along = v.transpose() * vectors.as_ref();
            solve_upper_triangular_in_place(factor.as_ref(), along.as_mut(), Par::Seq);
            multiply(
                vectors.as_mut(),
                Accum::Add,
                v.as_ref(),
                along.as_ref(),
                T::of(-1.0),
                Par::Seq,
            );
        }
    }
}

/// `matrix x` for a symmetric matrix with zeros above its diagonal, and an `x` with zeros before row `from`. Before that row the
/// result has no meaning.
fn symmetric_times(
    matrix: MatRef<'_, f64>,
    x: ColRef<'_, f64>,
    from: usize,
    product: &mut Mat<f64>,
) {
    product.fill(0.0);
    if let (Some(x), Some(product)) = (
        x.try_as_col_major(),
        product.col_mut(0).try_as_col_major_mut(),
    ) {
        Arch::new().dispatch(SymmetricTimes {
            matrix,
            x: x.as_slice(),
            from,
            product: product.as_slice_mut(),
        });
    }
}

struct SymmetricTimes<'a> {
    matrix: MatRef<'a, f64>,
    x: &'a [f64],
    from: usize,
    product: &'a mut [f64],
}

impl WithSimd for SymmetricTimes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let start = self.from / COLUMNS * COLUMNS;
        for j in (start..self.matrix.ncols()).step_by(COLUMNS) {
            // From the beginning of a line.
            let top = j / LINE * LINE;
            let [first, second, third, fourth] = columns(self.matrix, j, top);
            let (a, b) = (S::as_simd_f64s(first).0, S::as_simd_f64s(second).0);
            let (c, d) = (S::as_simd_f64s(third).0, S::as_simd_f64s(fourth).0);
            let factors: [f64; COLUMNS] = from_fn(|k| self.x.get(j + k).copied().unwrap_or(0.0));
            // Not in arrays, which the compiler would not keep in registers.
            let [by_a, by_b, by_c, by_d] = factors;
            let (by_a, by_b) = (simd.splat_f64s(by_a), simd.splat_f64s(by_b));
            let (by_c, by_d) = (simd.splat_f64s(by_c), simd.splat_f64s(by_d));
            let (x, _) = S::as_simd_f64s(self.x.get(top..).unwrap_or_default());
            let (product, _) = S::as_mut_simd_f64s(self.product.get_mut(top..).unwrap_or_default());
            let (mut sum_a, mut sum_b) = (simd.splat_f64s(0.0), simd.splat_f64s(0.0));
            let (mut sum_c, mut sum_d) = (simd.splat_f64s(0.0), simd.splat_f64s(0.0));
            let entries = a.iter().zip(b).zip(c).zip(d);
            for ((product, &x), (((&a, &b), &c), &d)) in product.iter_mut().zip(x).zip(entries) {
                let here = simd.mul_add_f64s(a, by_a, *product);
                let here = simd.mul_add_f64s(b, by_b, here);
                let here = simd.mul_add_f64s(c, by_c, here);
                *product = simd.mul_add_f64s(d, by_d, here);
                sum_a = simd.mul_add_f64s(a, x, sum_a);
                sum_b = simd.mul_add_f64s(b, x, sum_b);
                sum_c = simd.mul_add_f64s(c, x, sum_c);
                sum_d = simd.mul_add_f64s(d, x, sum_d);
            }
            let sum = |sum| simd.reduce_sum_f64s(sum);
            let sums = [sum(sum_a), sum(sum_b), sum(sum_c), sum(sum_d)];
            let columns = [first, second, third, fourth];
            let products = self.product.iter_mut().skip(j);
            for ((((product, sum), x), column), at) in
                products.zip(sums).zip(factors).zip(columns).zip(j - top..)
            {
                // What is on the diagonal has been counted twice.
                *product += sum - column.get(at).copied().unwrap_or(0.0) * x;
            }
        }
    }
}

/// The columns from `j` on, from row `top` on.
fn columns(matrix: MatRef<'_, f64>, j: usize, top: usize) -> [&[f64]; COLUMNS] {
    from_fn(|k| {
        let column = matrix.col(j + k).try_as_col_major();
        let column = column.map_or(&[][..], |column| column.as_slice());
        column.get(top..).unwrap_or_default()
    })
}
