//! Factors applied to a few vectors, as they are stored: without a copy in `f64`.

use faer::Mat;
use ndarray::ArrayD;
use pulp::{Arch, Simd, WithSimd};

use crate::module::row_major;

/// Vectors that rows are multiplied with while they are in the registers.
pub(super) const AT_ONCE: usize = 2;

/// As many vectors of one length.
pub(super) type Vectors = [Vec<f32>; AT_ONCE];

/// A factor, its first dimension as rows, times the columns of `x`. Products are in `f32`, which is what the factor is in.
pub(super) fn apply(factor: &ArrayD<f32>, x: &Mat<f64>) -> Mat<f64> {
    let rows = factor.shape().first().copied().unwrap_or(0);
    let values = row_major(factor);
    let mut products = Mat::zeros(rows, x.ncols());
    for start in (0..x.ncols()).step_by(AT_ONCE) {
        let vectors: Vectors = std::array::from_fn(|at| {
            let column = x.col_iter().nth(start + at);
            let column = column.map(|column| column.iter().map(|&x| x as f32).collect());
            column.unwrap_or_else(|| vec![0.0; x.nrows()])
        });
        let found = Arch::new().dispatch(Rows {
            values: &values,
            length: x.nrows(),
            vectors: &vectors,
        });
        let columns = products.col_iter_mut().skip(start);
        for (column, found) in columns.zip(found) {
            let entries = column.iter_mut().zip(found);
            entries.for_each(|(entry, x)| *entry = f64::from(x));
        }
    }
    products
}

/// Rows of a length, one after the other.
struct Rows<'a> {
    values: &'a [f32],
    length: usize,
    vectors: &'a Vectors,
}

impl WithSimd for Rows<'_> {
    type Output = Vectors;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vectors {
        let vectors = self.vectors.each_ref().map(Vec::as_slice);
        let mut products = Vectors::default();
        let length = self.length.max(1);
        for pair in self.values.chunks(2 * length) {
            // The last row may be alone.
            let mut rows = pair.chunks_exact(length);
            let first = rows.next().unwrap_or_default();
            let second = rows.next();
            let [found, next] = products_of(simd, [first, second.unwrap_or(first)], vectors);
            push(&mut products, found);
            if second.is_some() {
                push(&mut products, next);
            }
        }
        products
    }
}

/// Adds a number to each.
#[inline(always)]
pub(super) fn push(all: &mut Vectors, numbers: [f32; AT_ONCE]) {
    for (all, x) in all.iter_mut().zip(numbers) {
        all.push(x);
    }
}

/// The inner products of two rows with vectors of their length, which are loaded once for both.
#[inline(always)]
pub(super) fn products_of<S: Simd>(
    simd: S,
    rows: [&[f32]; 2],
    vectors: [&[f32]; AT_ONCE],
) -> [[f32; AT_ONCE]; 2] {
    let [first, second] = rows.map(|row| S::as_simd_f32s(row));
    let [x, y] = vectors.map(|vector| S::as_simd_f32s(vector));
    // Not in arrays, which the compiler would not keep in registers.
    let [mut first_x, mut first_y, mut second_x, mut second_y] = [simd.splat_f32s(0.0); 4];
    let mut add = |first, second, x, y| {
        first_x = simd.mul_add_e_f32s(first, x, first_x);
        first_y = simd.mul_add_e_f32s(first, y, first_y);
        second_x = simd.mul_add_e_f32s(second, x, second_x);
        second_y = simd.mul_add_e_f32s(second, y, second_y);
    };
    let rows = first.0.iter().zip(second.0);
    for (((&first, &second), &x), &y) in rows.zip(x.0).zip(y.0) {
        add(first, second, x, y);
    }
    let load = |rest| simd.partial_load_f32s(rest);
    if !x.1.is_empty() {
        add(load(first.1), load(second.1), load(x.1), load(y.1));
    }
    let sum = |sum| simd.reduce_sum_f32s(sum);
    [[sum(first_x), sum(first_y)], [sum(second_x), sum(second_y)]]
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn};

    use super::*;

    #[test]
    fn it_is_a_product_of_matrices() {
        // A kernel, and more vectors than go at once.
        for (shape, columns) in [(&[3, 2, 5, 5][..], 6), (&[40, 17], 8), (&[1, 1], 1)] {
            let mut next = 0;
            let factor: ArrayD<f32> = Array::from_shape_simple_fn(IxDyn(shape), || {
                next = (next * 7 + 3) % 11;
                next as f32 - 5.0
            });
            let (rows, length) = (shape[0], shape[1..].iter().product());
            let x = Mat::from_fn(length, columns, |i, j| ((i * 5 + j * 3) % 7) as f64 - 3.0);
            let values: Vec<f32> = factor.iter().copied().collect();
            let expected = Mat::from_fn(rows, columns, |i, j| {
                (0..length)
                    .map(|l| f64::from(values[i * length + l]) * x[(l, j)])
                    .sum::<f64>()
            });
            assert_eq!(apply(&factor, &x), expected);
        }
    }
}
