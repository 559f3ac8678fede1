//! Sums that keep their rank: a copy of the factors, in one pass.
//!
//! Every number is read once from memory. While a row is in the cache it is multiplied, written, and both it and its copy are
//! applied to the random vectors of the self-check.

use std::{array::from_fn, borrow::Cow};

use ndarray::{ArrayD, IxDyn};
use pulp::{Arch, Simd, WithSimd};

use super::{
    apply::{AT_ONCE, Vectors, products_of, push},
    check::probes,
    combine::Term,
};
use crate::{LoraError, LoraModule, module::row_major};

/// Numbers that are multiplied in registers before they are written.
const PIECE: usize = 64;

/// A sum, and what was seen of it on the way.
#[derive(Debug)]
pub(super) struct ExactSum {
    pub(super) module: LoraModule,
    /// Frobenius norm, estimated: the exact one costs several times what the sum does.
    pub(super) norm: f64,
    pub(super) self_check: f64,
}

/// `lambda * share * sum_i w_i dW_i` for a weight of the shape `weight`: the numbers of
/// [`concatenate`](super::combine::concatenate), without a copy in `f64`.
pub(super) fn exact_sum(
    path: &str,
    terms: &[Option<Term<'_>>],
    share: f64,
    lambda: f64,
    weight: &[usize],
) -> Result<ExactSum, LoraError> {
    let rank: usize = terms.iter().flatten().map(|term| term.module.rank()).sum();
    let outputs = weight.first().copied().unwrap_or(0);
    let inputs: usize = weight.iter().skip(1).product();
    // Where nothing is truncated, what is wrong is wrong for all of them.
    let random = probes(path, inputs, AT_ONCE);
    let mut columns = random.col_iter();
    let vectors: Vectors = from_fn(|_| {
        let column = columns.next();
        column.map_or_else(Vec::new, |column| {
            column.iter().map(|&x| x as f32).collect()
        })
    });
    let arch = Arch::new();
    let mut a = Vec::with_capacity(rank * inputs);
    let mut found_inner = from_fn(|_| Vec::with_capacity(rank));
    let mut sides: Vec<Side<'_>> = Vec::with_capacity(terms.len());
    for term in terms.iter().flatten() {
        let coefficient = share * term.weight * term.module.scale();
        let root = coefficient.abs().sqrt();
        let mut inner = from_fn(|_| Vec::with_capacity(term.module.rank()));
        arch.dispatch(CopyA {
            values: &row_major(&term.module.a),
            inputs,
            by: root,
            vectors: &vectors,
            copy: &mut a,
            products: &mut inner,
            copy_products: &mut found_inner,
        });
        sides.push(Side {
            values: row_major(&term.module.b),
            rank: term.module.rank(),
            by: root.copysign(coefficient),
            coefficient: lambda * coefficient,
            inner,
            energy: 0.0,
        });
    }
    let mut b = Vec::with_capacity(outputs * rank);
    let (energy, distance) = arch.dispatch(CopyB {
        sides: &mut sides,
        outputs,
        lambda,
        inner: &found_inner,
        copy: &mut b,
    });
    let size: f64 = sides.iter().map(|side| side.energy.sqrt()).sum();
    let mut a_shape = vec![rank];
    a_shape.extend(weight.iter().skip(1));
    let mut b_shape = vec![outputs, rank];
    b_shape.extend(weight.iter().skip(2).map(|_| 1));
    let misfit = |found: usize| LoraError::WeightShapes {
        expected: weight.to_vec(),
        found: vec![found],
    };
    let (a_len, b_len) = (a.len(), b.len());
    let module = LoraModule::new(
        ArrayD::from_shape_vec(IxDyn(&a_shape), a).map_err(|_| misfit(a_len))?,
        ArrayD::from_shape_vec(IxDyn(&b_shape), b).map_err(|_| misfit(b_len))?,
        lambda * rank as f64,
    )?;
    Ok(ExactSum {
        module,
        // The expected square of the length of M x, for x of independent normal numbers, is ||M||^2.
        norm: (energy / AT_ONCE as f64).sqrt(),
        // In f32, in which the factors are: rounding is a few times 1e-7.
        self_check: if distance == 0.0 {
            0.0
        } else {
            distance.sqrt() / size
        },
    })
}

/// Multiplies the rows of an `A`, and applies `A` and its copy to the vectors.
struct CopyA<'a> {
    values: &'a [f32],
    inputs: usize,
    by: f64,
    vectors: &'a Vectors,
    copy: &'a mut Vec<f32>,
    products: &'a mut Vectors,
    copy_products: &'a mut Vectors,
}

impl WithSimd for CopyA<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = self.vectors.each_ref().map(Vec::as_slice);
        for row in self.values.chunks_exact(self.inputs) {
            let copy = append(self.copy, row, self.by);
            let [found, copy_found] = products_of(simd, [row, copy], vectors);
            push(self.products, found);
            push(self.copy_products, copy_found);
        }
    }
}

/// `B` of one adapter, and what it is applied to.
#[derive(Debug)]
struct Side<'a> {
    values: Cow<'a, [f32]>,
    rank: usize,
    /// What its numbers are multiplied by.
    by: f64,
    /// What `B A` is multiplied by.
    coefficient: f64,
    /// `A x`
    inner: Vectors,
    /// The square of the length of the scaled `B A x`.
    energy: f64,
}

impl Side<'_> {
    #[inline(always)]
    fn row(&self, output: usize) -> &[f32] {
        let row = self.values.chunks_exact(self.rank).nth(output);
        row.unwrap_or_default()
    }
}

/// Puts the rows of all `B` side by side and multiplies them; applies them and their copy to what the `A` gave.
struct CopyB<'a, 'b> {
    sides: &'a mut [Side<'b>],
    outputs: usize,
    lambda: f64,
    inner: &'a Vectors,
    copy: &'a mut Vec<f32>,
}

impl WithSimd for CopyB<'_, '_> {
    /// The squares of the length of what the formula gives, and of the copy's distance from it.
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
        let inner = self.inner.each_ref().map(Vec::as_slice);
        let rank: usize = self.sides.iter().map(|side| side.rank).sum();
        let (mut energy, mut distance) = (0.0, 0.0);
        for first in (0..self.outputs).step_by(2) {
            // The last row may be alone.
            let count = 2.min(self.outputs - first);
            let start = self.copy.len();
            for output in first..first + count {
                for side in &*self.sides {
                    append(self.copy, side.row(output), side.by);
                }
            }
            let mut expected = [[0.0; AT_ONCE]; 2];
            for side in &mut *self.sides {
                let rows = [first, first + count - 1].map(|output| side.row(output));
                let inner = side.inner.each_ref().map(Vec::as_slice);
                let products = products_of(simd, rows, inner);
                for (sums, products) in expected.iter_mut().zip(products).take(count) {
                    for (sum, product) in sums.iter_mut().zip(products) {
                        let product = side.coefficient * f64::from(product);
                        side.energy += product * product;
                        *sum += product;
                    }
                }
            }
            let (copy, last) = (self.copy.get(start..).unwrap_or_default()).split_at(rank);
            let rows = if last.is_empty() {
                [copy, copy]
            } else {
                [copy, last]
            };
            let found = products_of(simd, rows, inner);
            for (expected, found) in expected.iter().zip(found).take(count) {
                for (expected, found) in expected.iter().zip(found) {
                    let off = self.lambda * f64::from(found) - expected;
                    distance += off * off;
                    energy += expected * expected;
                }
            }
        }
        (energy, distance)
    }
}

/// Appends `row` times `by`, in `f64` and rounded once; there is room. Returns what was appended.
#[inline(always)]
fn append<'a>(target: &'a mut Vec<f32>, row: &[f32], by: f64) -> &'a [f32] {
    let start = target.len();
    if by == 1.0 {
        target.extend_from_slice(row);
    } else {
        // Piece by piece: an iterator over all takes one number at a time, and zeros to write over cost a seventh of the merge.
        let mut multiplied = [0.0; PIECE];
        for piece in row.chunks(PIECE) {
            for (to, &x) in multiplied.iter_mut().zip(piece) {
                *to = (f64::from(x) * by) as f32;
            }
            target.extend_from_slice(multiplied.get(..piece.len()).unwrap_or_default());
        }
    }
    target.get(start..).unwrap_or_default()
}
