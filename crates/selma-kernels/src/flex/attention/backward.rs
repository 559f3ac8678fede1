//! The gradients, strip by strip of queries and block by block of keys, from scores that are computed again.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Sizes;
use super::forward::{BLOCK, PARALLEL};
use super::pack::{Heads, LANES, grouped, padded};
use super::product::{GROUP, Start, by_rows, interleaved};
use super::softmax::{STRIP, exp_below};

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

/// The packed operands of all heads.
struct Packed<'a> {
    gradients: &'a Gradients<'a>,
    /// `[head][group][width][GROUP]`.
    grouped_keys: Vec<f32>,
    /// `[head][group][value_width][GROUP]`.
    grouped_values: Vec<f32>,
    /// `[head][key][width in groups]`; empty where the gradient of the query is not wanted.
    keys: Vec<f32>,
}

/// Some queries of a head.
struct Task<'a> {
    head: usize,
    queries: Range<usize>,
    /// Where the gradient of the query goes, `[queries][width]`; empty where it is not wanted.
    query: &'a mut [f32],
}

/// The sums of a task for the gradients of keys and values, with rows of whole vectors; empty where they are not wanted.
struct Sums {
    key: Vec<f32>,
    value: Vec<f32>,
}

/// Memory that a thread uses again. Of queries and of the gradient of the output, each in both orders.
struct Scratch {
    query_columns: Vec<f32>,
    query_rows: Vec<f32>,
    gradient_columns: Vec<f32>,
    gradient_rows: Vec<f32>,
    /// `[BLOCK][strip]` each: the softmax's values, and the gradient of the scores.
    weights: Vec<f32>,
    scores: Vec<f32>,
    /// The gradient of the query, `[width in groups][strip]`.
    query_sums: Vec<f32>,
}

impl Gradients<'_> {
    /// The gradients of query, key and value, each in the order of its tensor's sizes.
    pub(super) fn run(&self) -> (Option<Vec<f32>>, Option<Vec<f32>>, Option<Vec<f32>>) {
        let Sizes {
            batch,
            heads,
            queries,
            width,
            ..
        } = self.sizes;
        let count = batch * heads;
        let packed = Packed {
            gradients: self,
            grouped_keys: grouped(self.key, count),
            grouped_values: grouped(self.value, count),
            keys: match self.wanted.query {
                true => padded(self.key, count, width.next_multiple_of(GROUP)),
                false => Vec::new(),
            },
        };
        let strip = self.sizes.strip();
        let parts = TASKS.div_ceil(heads).min(queries.div_ceil(strip));
        let part = queries.div_ceil(strip).div_ceil(parts) * strip;
        let mut query = vec![
            0.0;
            if self.wanted.query {
                count * queries * width
            } else {
                0
            }
        ];
        let mut rest = query.as_mut_slice();
        let mut tasks = Vec::new();
        for head in 0..count {
            for first in (0..queries).step_by(part) {
                let queries = first..queries.min(first + part);
                let size = queries.len() * width * usize::from(self.wanted.query);
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
            let mut sums = packed.sums();
            arch.dispatch(Running {
                packed: &packed,
                scratch,
                task,
                sums: &mut sums,
            });
            sums
        };
        let sums: Vec<Sums> = if self.sizes.work() < PARALLEL {
            let mut scratch = packed.scratch();
            tasks
                .into_iter()
                .map(|task| run(&mut scratch, task))
                .collect()
        } else {
            tasks
                .into_par_iter()
                .with_max_len(1)
                .map_init(|| packed.scratch(), run)
                .collect()
        };
        let parts = sums.len() / count;
        let rows = |of: &dyn Fn(&Sums) -> &[f32], width| self.collect(&sums, parts, of, width);
        (
            self.wanted.query.then_some(query),
            self.wanted.key.then(|| rows(&|sums| &sums.key, width)),
            self.wanted
                .value
                .then(|| rows(&|sums| &sums.value, self.sizes.value_width)),
        )
    }

    /// The sums of all parts of each head, without what fills up the rows.
    fn collect(
        &self,
        sums: &[Sums],
        parts: usize,
        of: &dyn Fn(&Sums) -> &[f32],
        width: usize,
    ) -> Vec<f32> {
        let keys = self.sizes.keys;
        let mut gradient = Vec::with_capacity(sums.len() / parts * keys * width);
        for parts in sums.chunks_exact(parts) {
            let start = gradient.len();
            for part in parts {
                let rows = of(part)
                    .chunks_exact(width.next_multiple_of(LANES))
                    .take(keys);
                let rows = rows.map(|row| &row[..width]);
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

impl Packed<'_> {
    fn sums(&self) -> Sums {
        let Gradients { sizes, wanted, .. } = self.gradients;
        let rows = sizes.keys.next_multiple_of(GROUP);
        let sums = |wanted, width: usize| match wanted {
            true => vec![0.0; rows * width.next_multiple_of(LANES)],
            false => Vec::new(),
        };
        Sums {
            key: sums(wanted.key, sizes.width),
            value: sums(wanted.value, sizes.value_width),
        }
    }

    fn scratch(&self) -> Scratch {
        let sizes = self.gradients.sizes;
        let strip = sizes.strip();
        let (width, value_width) = (sizes.width, sizes.value_width);
        Scratch {
            query_columns: vec![0.0; width * strip],
            query_rows: vec![0.0; strip * width.next_multiple_of(LANES)],
            gradient_columns: vec![0.0; value_width * strip],
            gradient_rows: vec![0.0; strip * value_width.next_multiple_of(LANES)],
            weights: vec![0.0; BLOCK * strip],
            scores: vec![0.0; BLOCK * strip],
            query_sums: vec![0.0; width.next_multiple_of(GROUP) * strip],
        }
    }
}

struct Running<'a, 'b> {
    packed: &'a Packed<'a>,
    scratch: &'a mut Scratch,
    task: Task<'b>,
    sums: &'a mut Sums,
}

impl WithSimd for Running<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let strip = self.packed.gradients.sizes.strip();
        let queries = self.task.queries.clone();
        for first in queries.clone().step_by(strip) {
            self.strip(simd, first..queries.end.min(first + strip));
        }
    }
}

impl Running<'_, '_> {
    #[inline(always)]
    fn strip<S: Simd>(&mut self, simd: S, queries: Range<usize>) {
        let Gradients {
            query,
            output,
            gradient,
            logarithms,
            sizes,
            wanted,
            ..
        } = *self.packed.gradients;
        let strip = sizes.strip();
        let (width, value_width) = (sizes.width, sizes.value_width);
        let (padded, value_padded) = (
            width.next_multiple_of(LANES),
            value_width.next_multiple_of(LANES),
        );
        let head = self.task.head;
        let scale = sizes.scale();

        // What belongs to the queries.
        let scratch = &mut *self.scratch;
        let (query, output, gradient) = (query.head(head), output.head(head), gradient.head(head));
        query.columns(queries.clone(), scale, strip, &mut scratch.query_columns);
        gradient.columns(queries.clone(), 1.0, strip, &mut scratch.gradient_columns);
        scratch.query_rows.fill(0.0);
        query.rows(queries.clone(), scale, padded, &mut scratch.query_rows);
        scratch.gradient_rows.fill(0.0);
        gradient.rows(
            queries.clone(),
            1.0,
            value_padded,
            &mut scratch.gradient_rows,
        );
        let mut logarithm = [0.0; STRIP];
        let mut product = [0.0; STRIP];
        let (batch, inner) = (head / sizes.heads, head % sizes.heads);
        for (i, row) in queries.clone().enumerate() {
            logarithm[i] = logarithms[(batch * sizes.queries + row) * sizes.heads + inner];
            product[i] = dot(gradient.row(row), output.row(row));
        }
        scratch.query_sums.fill(0.0);

        let groups = sizes.keys.div_ceil(GROUP);
        for block in (0..groups).step_by(BLOCK / GROUP) {
            let block = block..groups.min(block + BLOCK / GROUP);
            let keys = block.start * GROUP..sizes.keys.min(block.end * GROUP);
            let all = head * groups;
            for (index, group) in block.clone().enumerate() {
                let place = index * GROUP * strip..(index + 1) * GROUP * strip;
                let at = (all + group) * GROUP;
                let left = &self.packed.grouped_keys[at * width..(at + GROUP) * width];
                let weights = &mut scratch.weights[place.clone()];
                interleaved(
                    simd,
                    (left, GROUP),
                    &scratch.query_columns,
                    strip,
                    weights,
                    Start::Zero,
                );
                let left =
                    &self.packed.grouped_values[at * value_width..(at + GROUP) * value_width];
                let scores = &mut scratch.scores[place];
                interleaved(
                    simd,
                    (left, GROUP),
                    &scratch.gradient_columns,
                    strip,
                    scores,
                    Start::Zero,
                );
            }
            let filled = block.len() * GROUP * strip;
            let live = keys.len() * strip;
            let rows = scratch.weights[..live].chunks_exact_mut(strip);
            for (weights, scores) in rows.zip(scratch.scores.chunks_exact_mut(strip)) {
                let state = logarithm[..strip].iter().zip(&product[..strip]);
                let pairs = weights.iter_mut().zip(scores).zip(state);
                for ((weight, score), (logarithm, product)) in pairs {
                    *weight = exp_below(*weight - logarithm);
                    *score = *weight * (*score - product);
                }
            }
            // What fills up the last group is no key.
            scratch.weights[live..filled].fill(0.0);
            scratch.scores[live..filled].fill(0.0);

            if wanted.query {
                let rows = width.next_multiple_of(GROUP);
                let start = (head * sizes.keys + keys.start) * rows;
                let left = &self.packed.keys[start..start + keys.len() * rows];
                let scores = &scratch.scores[..live];
                let sums = scratch.query_sums.chunks_exact_mut(GROUP * strip);
                for (group, sums) in sums.enumerate() {
                    interleaved(
                        simd,
                        (&left[group * GROUP..], rows),
                        scores,
                        strip,
                        sums,
                        Start::Sums,
                    );
                }
            }
            let parts = [
                (
                    wanted.value,
                    &scratch.weights,
                    &scratch.gradient_rows,
                    value_padded,
                    &mut self.sums.value,
                ),
                (
                    wanted.key,
                    &scratch.scores,
                    &scratch.query_rows,
                    padded,
                    &mut self.sums.key,
                ),
            ];
            for (wanted, left, right, row, sums) in parts {
                if wanted {
                    let sums = &mut sums[block.start * GROUP * row..block.end * GROUP * row];
                    let left = left[..filled].chunks_exact(GROUP * strip);
                    for (left, sums) in left.zip(sums.chunks_exact_mut(GROUP * row)) {
                        by_rows(simd, (left, strip), right, row, sums);
                    }
                }
            }
        }
        if wanted.query {
            let start = (queries.start - self.task.queries.start) * width;
            let rows =
                self.task.query[start..start + queries.len() * width].chunks_exact_mut(width);
            for (i, row) in rows.enumerate() {
                for (x, sums) in row.iter_mut().zip(scratch.query_sums.chunks_exact(strip)) {
                    *x = sums[i] * scale;
                }
            }
        }
    }
}

/// The sum of the products, in one partial sum for each lane.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *sum += a * b;
    }
    sums.iter().sum()
}
