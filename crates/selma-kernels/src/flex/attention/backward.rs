//! The gradients: who computes which part of them, and how the parts come together.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use pulp::Arch;
use rayon::prelude::*;

use super::Sizes;
use super::forward::PARALLEL;
use super::pack::{Aligned, Heads, LANES};
use super::strip::{Operands, Running, Scratch, Sums, Task};

/// Tasks there shall be of each sample, so that several threads have work. Where there are fewer heads, their queries are
/// shared out, and each part has a sum of its own for the gradients of keys and values.
const TASKS: usize = 8;

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) query: bool,
    pub(super) key: bool,
    pub(super) value: bool,
}

/// What the gradients are computed from.
pub(super) struct Gradients<'a> {
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    pub(super) output: Heads<'a>,
    /// The gradient of the output.
    pub(super) gradient: Heads<'a>,
    /// The logarithms of the softmax's denominators, `[batch, queries, heads]`.
    pub(super) logarithms: &'a [f32],
    pub(super) sizes: Sizes,
    pub(super) wanted: Wanted,
}

impl Gradients<'_> {
    /// The gradients of query, key and value, each in the order of its tensor's sizes.
    pub(super) fn run(&self) -> [Option<Vec<f32>>; 3] {
        let Sizes {
            batch,
            heads,
            queries,
            width,
            ..
        } = self.sizes;
        let count = batch * heads;
        let operands = Operands::new(self);
        let strip = self.sizes.strip();
        let parts = TASKS.div_ceil(heads).min(queries.div_ceil(strip));
        let part = queries.div_ceil(strip).div_ceil(parts) * strip;
        let row = if self.wanted.query { width } else { 0 };
        let mut query = vec![0.0; count * queries * row];
        let mut rest = query.as_mut_slice();
        let mut tasks = Vec::new();
        for head in 0..count {
            for first in (0..queries).step_by(part) {
                let queries = first..queries.min(first + part);
                let size = queries.len() * row;
                let (query, after) = core::mem::take(&mut rest).split_at_mut(size);
                rest = after;
                tasks.push(Task {
                    head,
                    queries,
                    query,
                });
            }
        }
        let arch = Arch::new();
        let run = |scratch: &mut Scratch, task: Task<'_>| {
            let mut sums = Sums::new(self);
            arch.dispatch(Running {
                operands: &operands,
                scratch,
                task,
                sums: &mut sums,
            });
            sums
        };
        let sums: Vec<Sums> = if self.sizes.work() < PARALLEL {
            let mut scratch = Scratch::new(self.sizes);
            tasks
                .into_iter()
                .map(|task| run(&mut scratch, task))
                .collect()
        } else {
            tasks
                .into_par_iter()
                .with_max_len(1)
                .map_init(|| Scratch::new(self.sizes), run)
                .collect()
        };
        let parts = sums.len() / count;
        let (keys, values): (Vec<_>, Vec<_>) =
            sums.into_iter().map(|sums| (sums.key, sums.value)).unzip();
        let Wanted { key, value, .. } = self.wanted;
        [
            self.wanted.query.then_some(query),
            key.then(|| self.collect(&keys, parts, width)),
            value.then(|| self.collect(&values, parts, self.sizes.value_width)),
        ]
    }

    /// The sums of all parts of each head, without what fills up the rows.
    fn collect(&self, sums: &[Aligned], parts: usize, width: usize) -> Vec<f32> {
        let keys = self.sizes.keys;
        let mut gradient = Vec::with_capacity(sums.len() / parts * keys * width);
        for parts in sums.chunks_exact(parts) {
            let start = gradient.len();
            for part in parts {
                let rows = part.chunks_exact(width.next_multiple_of(LANES));
                let rows = rows.take(keys).map(|row| &row[..width]);
                if gradient.len() == start {
                    rows.for_each(|row| gradient.extend_from_slice(row));
                } else {
                    for (total, row) in gradient[start..].chunks_exact_mut(width).zip(rows) {
                        for (total, &x) in total.iter_mut().zip(row) {
                            *total += x;
                        }
                    }
                }
            }
        }
        gradient
    }
}
