//! Factors applied to a few vectors, as they are stored: without a copy in `f64`.

use faer::Mat;
use ndarray::ArrayD;
use pulp::{Arch, Simd, WithSimd};

use crate::module::row_major;

/// Vectors that a row is multiplied with while it is in the registers.
pub(super) const AT_ONCE: usize = 4;

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
        for row in self.values.chunks_exact(self.length.max(1)) {
            let found = products_of(simd, row, vectors);
            products
                .iter_mut()
                .zip(found)
                .for_each(|(all, x)| all.push(x));
        }
        products
    }
}

/// The inner products of a row with vectors of its length.
#[inline(always)]
pub(super) fn products_of<S: Simd>(
    simd: S,
    row: &[f32],
    vectors: [&[f32]; AT_ONCE],
) -> [f32; AT_ONCE] {
    let (row, row_rest) = S::as_simd_f32s(row);
    let [w, x, y, z] = vectors.map(|vector| S::as_simd_f32s(vector));
    let [mut to_w, mut to_x, mut to_y, mut to_z] = [simd.splat_f32s(0.0); AT_ONCE];
    for ((((&row, &w), &x), &y), &z) in row.iter().zip(w.0).zip(x.0).zip(y.0).zip(z.0) {
        to_w = simd.mul_add_e_f32s(row, w, to_w);
        to_x = simd.mul_add_e_f32s(row, x, to_x);
        to_y = simd.mul_add_e_f32s(row, y, to_y);
        to_z = simd.mul_add_e_f32s(row, z, to_z);
    }
    let rest = simd.partial_load_f32s(row_rest);
    let end = |sum, vector_rest| {
        let vector = simd.partial_load_f32s(vector_rest);
        simd.reduce_sum_f32s(simd.mul_add_e_f32s(rest, vector, sum))
    };
    [
        end(to_w, w.1),
        end(to_x, x.1),
        end(to_y, y.1),
        end(to_z, z.1),
    ]
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
