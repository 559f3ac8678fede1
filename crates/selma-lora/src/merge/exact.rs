//! Sums that keep their rank: a copy of the factors, in one pass.
//!
//! Every number is read once from memory. While a row is in the cache it is multiplied, written, and both it and its copy are
//! applied to the random vectors of the self-check.

use std::borrow::Cow;

use ndarray::{ArrayD, IxDyn};
use pulp::Arch;

use super::{check::probes, combine::Term};
use crate::{LoraError, LoraModule, module::row_major};

/// Random vectors per module: where nothing is truncated, what is wrong is wrong for all of them.
const PROBES: usize = 4;

/// Numbers that are added up side by side: those of the widest registers.
const LANES: usize = 16;

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
    let vectors = Vectors::random(path, inputs);
    // For the widest vectors of this processor; what is called must be inlined for that.
    let arch = Arch::new();
    let mut a = Vec::with_capacity(rank * inputs);
    let mut found_inner = Vec::with_capacity(rank);
    let mut sides: Vec<Side<'_>> = Vec::with_capacity(terms.len());
    for term in terms.iter().flatten() {
        let coefficient = share * term.weight * term.module.scale();
        let root = coefficient.abs().sqrt();
        let values = row_major(&term.module.a);
        let mut inner = Vec::with_capacity(term.module.rank());
        arch.dispatch(|| {
            for row in values.chunks_exact(inputs) {
                let copy = append(&mut a, row, root);
                inner.push(vectors.products(row));
                found_inner.push(vectors.products(copy));
            }
        });
        sides.push(Side {
            values: row_major(&term.module.b),
            rank: term.module.rank(),
            signed: root.copysign(coefficient),
            coefficient: lambda * coefficient,
            inner: Vectors::packed(&inner),
            energy: 0.0,
        });
    }
    let found_inner = Vectors::packed(&found_inner);
    let mut b = Vec::with_capacity(outputs * rank);
    let (mut energy, mut distance) = (0.0, 0.0);
    arch.dispatch(|| {
        for output in 0..outputs {
            let start = b.len();
            let mut expected = [0.0; PROBES];
            for side in &mut sides {
                let row = side.values.chunks_exact(side.rank).nth(output);
                let row = row.unwrap_or_default();
                append(&mut b, row, side.signed);
                for (sum, product) in expected.iter_mut().zip(side.inner.products(row)) {
                    let product = side.coefficient * f64::from(product);
                    side.energy += product * product;
                    *sum += product;
                }
            }
            let found = found_inner.products(b.get(start..).unwrap_or_default());
            for (expected, found) in expected.into_iter().zip(found) {
                let off = lambda * f64::from(found) - expected;
                distance += off * off;
                energy += expected * expected;
            }
        }
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
        norm: (energy / PROBES as f64).sqrt(),
        // In f32, in which the factors are: rounding is a few times 1e-7.
        self_check: if distance == 0.0 {
            0.0
        } else {
            f64::sqrt(distance) / size
        },
    })
}

/// `B` of one adapter, and what it is applied to.
#[derive(Debug)]
struct Side<'a> {
    values: Cow<'a, [f32]>,
    rank: usize,
    /// What its numbers are multiplied by.
    signed: f64,
    /// What `B A` is multiplied by.
    coefficient: f64,
    /// `A x`
    inner: Vectors,
    /// The square of the length of the scaled `B A x`.
    energy: f64,
}

/// Several vectors, their entries in turn: [`LANES`] of one, as many of the next; filled up with zeros.
#[derive(Debug)]
struct Vectors(Vec<[[f32; LANES]; PROBES]>);

impl Vectors {
    fn random(path: &str, length: usize) -> Self {
        let vectors = probes(path, length, PROBES);
        let entries = vectors.row_iter().map(|row| {
            let mut entries = [0.0; PROBES];
            for (entry, &x) in entries.iter_mut().zip(row.iter()) {
                *entry = x as f32;
            }
            entries
        });
        Self::packed(&entries.collect::<Vec<_>>())
    }

    /// Given one entry of each.
    fn packed(entries: &[[f32; PROBES]]) -> Self {
        let blocks = entries.chunks(LANES).map(|entries| {
            let mut block = [[0.0; LANES]; PROBES];
            for (lane, entries) in entries.iter().enumerate() {
                for (vector, &entry) in block.iter_mut().zip(entries) {
                    if let Some(target) = vector.get_mut(lane) {
                        *target = entry;
                    }
                }
            }
            block
        });
        Self(blocks.collect())
    }

    /// The inner products of all of them with `row`, which is as long.
    #[inline(always)]
    fn products(&self, row: &[f32]) -> [f32; PROBES] {
        let mut sums = [[0.0; LANES]; PROBES];
        let (blocks, rest) = row.as_chunks::<LANES>();
        for (row, block) in blocks.iter().zip(&self.0) {
            add_products(&mut sums, row, block);
        }
        if let (false, Some(block)) = (rest.is_empty(), self.0.last()) {
            let mut last = [0.0; LANES];
            last.iter_mut().zip(rest).for_each(|(x, &y)| *x = y);
            add_products(&mut sums, &last, block);
        }
        sums.map(|lanes| lanes.iter().sum())
    }
}

#[inline(always)]
fn add_products(
    sums: &mut [[f32; LANES]; PROBES],
    row: &[f32; LANES],
    block: &[[f32; LANES]; PROBES],
) {
    for (sums, vector) in sums.iter_mut().zip(block) {
        for ((sum, x), y) in sums.iter_mut().zip(row).zip(vector) {
            *sum += x * y;
        }
    }
}

/// Appends `row` times `by`, in `f64` and rounded once; there is room. Returns what was appended.
#[inline(always)]
fn append<'a>(target: &'a mut Vec<f32>, row: &[f32], by: f64) -> &'a [f32] {
    let start = target.len();
    if by == 1.0 {
        target.extend_from_slice(row);
    } else {
        target.extend(row.iter().map(|&x| (f64::from(x) * by) as f32));
    }
    target.get(start..).unwrap_or_default()
}
