//! What is added to one tensor.

use std::ops::Range;

use faer::Mat;
use rayon::prelude::*;

use super::{Part, Place};
use crate::{Dtype, LoraError, LoraModule, Weighted};

/// Numbers of a tensor that are in memory at once, more only where one row is longer.
const BATCH: usize = 1 << 20;

/// A low-rank update of some rows of a tensor, its shape taken as `[rows, columns]`.
#[derive(Debug)]
struct Term {
    rows: Range<usize>,
    /// `[rank, rows]`, with weight and scale.
    left: Mat<f64>,
    /// `[columns, rank]`
    right: Mat<f64>,
}

/// All updates of one tensor.
#[derive(Debug, Default)]
pub(super) struct Updates(Vec<Term>);

impl Updates {
    /// What the adapters add to a tensor of this shape, in which every module has the shape that they expect.
    pub(super) fn new(places: &[Place], shape: &[usize], inputs: &[Weighted<'_>]) -> Self {
        let terms = places.iter().flat_map(|place| {
            inputs.iter().filter_map(|input| {
                let module = input.adapter.modules.get(&place.module)?;
                let factor = input.weight * module.scale();
                let acts = factor != 0.0 && !module.is_zero();
                acts.then(|| Term::new(place, shape, module, factor))
            })
        });
        Self(terms.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the values of a tensor by `read` and hands them to `write` with the updates added, a few rows at a time.
    pub(super) fn stream(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        mut read: impl FnMut(&mut [u8]) -> Result<(), LoraError>,
        mut write: impl FnMut(&[u8]) -> Result<(), LoraError>,
    ) -> Result<(), LoraError> {
        let rows = shape.first().copied().unwrap_or(1);
        let columns: usize = shape.iter().skip(1).product();
        let row_bytes = columns.max(1) * dtype.size();
        let at_once = (BATCH / columns.max(1)).clamp(1, rows.max(1));
        let per_thread = at_once.div_ceil(rayon::current_num_threads());
        let mut bytes = vec![0; at_once * row_bytes];
        for start in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - start);
            bytes.truncate(count * row_bytes);
            read(&mut bytes)?;
            let fused = bytes
                .par_chunks(per_thread * row_bytes)
                .enumerate()
                .map(|(index, bytes)| {
                    let first = start + index * per_thread;
                    let sums = self.added(first, columns, &dtype.decode(bytes));
                    dtype.encode_named(name, &sums)
                })
                .collect::<Result<Vec<_>, _>>()?;
            for part in &fused {
                write(part)?;
            }
        }
        Ok(())
    }

    /// The rows from `first` on, with the updates added.
    fn added(&self, first: usize, columns: usize, values: &[f32]) -> Vec<f32> {
        let end = first + values.len() / columns.max(1);
        let mut sums: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        for term in &self.0 {
            let (from, to) = (term.rows.start.max(first), term.rows.end.min(end));
            if from >= to {
                continue;
            }
            let left = term.left.subcols(from - term.rows.start, to - from);
            let update = &term.right * left;
            let rows = sums.chunks_mut(columns.max(1)).skip(from - first);
            for (row, column) in rows.zip(update.col_iter()) {
                for (sum, update) in row.iter_mut().zip(column.iter()) {
                    *sum += update;
                }
            }
        }
        sums.iter().map(|&x| x as f32).collect()
    }
}

impl Term {
    fn new(place: &Place, shape: &[usize], module: &LoraModule, factor: f64) -> Self {
        let (a_turned, b_turned) = (module.a_turned(), module.b_turned());
        let (left, right) = match place.part {
            // The rows of (B A)^T = A^T B^T are columns of A.
            Part::Transposed => (
                a_turned.transpose().to_owned(),
                b_turned.transpose().to_owned(),
            ),
            Part::Whole | Part::Rows(_) => (b_turned, a_turned),
        };
        let rows = match &place.part {
            Part::Rows(rows) => rows.clone(),
            Part::Whole | Part::Transposed => 0..shape.first().copied().unwrap_or(1),
        };
        Self {
            rows,
            left: faer::Scale(factor) * left,
            right,
        }
    }
}
