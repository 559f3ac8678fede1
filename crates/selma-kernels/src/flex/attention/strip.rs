//! The gradients of a strip of queries, block by block of keys, from scores that are computed again.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::Sizes;
use super::backward::Gradients;
use super::forward::BLOCK;
use super::pack::{Aligned, LANES, grouped, padded};
use super::product::{GROUP, by_columns, by_groups, by_rows};
use super::softmax::{STRIP, exp_below};

/// The packed keys and values of all heads.
pub(super) struct Operands<'a> {
    gradients: &'a Gradients<'a>,
    /// `[head][group][width][GROUP]`.
    grouped_keys: Vec<f32>,
    /// `[head][group][value_width][GROUP]`.
    grouped_values: Vec<f32>,
    /// `[head][key][width in groups]`; empty where the gradient of the query is not wanted.
    keys: Vec<f32>,
}

impl<'a> Operands<'a> {
    pub(super) fn new(gradients: &'a Gradients<'a>) -> Self {
        let sizes = gradients.sizes;
        let count = sizes.batch * sizes.heads;
        Self {
            gradients,
            grouped_keys: grouped(gradients.key, count),
            grouped_values: grouped(gradients.value, count),
            keys: match gradients.wanted.query {
                true => padded(gradients.key, count, sizes.width.next_multiple_of(GROUP)),
                false => Vec::new(),
            },
        }
    }
}

/// Some queries of a head.
pub(super) struct Task<'a> {
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
    /// Where the gradient of the query goes, `[queries][width]`; empty where it is not wanted.
    pub(super) query: &'a mut [f32],
}

/// The sums of a task for the gradients of keys and values, `[keys in groups][width in vectors]`; empty where they are not
/// wanted.
pub(super) struct Sums {
    pub(super) key: Aligned,
    pub(super) value: Aligned,
}

impl Sums {
    pub(super) fn new(gradients: &Gradients<'_>) -> Self {
        let Gradients { sizes, wanted, .. } = gradients;
        let rows = sizes.keys.next_multiple_of(GROUP);
        let sums = |wanted, width: usize| match wanted {
            true => Aligned::new(rows * width.next_multiple_of(LANES)),
            false => Aligned::new(0),
        };
        Self {
            key: sums(wanted.key, sizes.width),
            value: sums(wanted.value, sizes.value_width),
        }
    }
}

/// Memory that a thread uses again. Queries and the gradient of the output lie in it in both orders.
pub(super) struct Scratch {
    query_columns: Aligned,
    query_rows: Aligned,
    gradient_columns: Aligned,
    gradient_rows: Aligned,
    /// Of each query: the logarithm of its denominator, and its output times the gradient of that.
    logarithm: [f32; STRIP],
    product: [f32; STRIP],
    /// `[BLOCK][strip]` each: the softmax's values, and the gradient of the scores.
    weights: Aligned,
    scores: Aligned,
    /// The gradient of the query, `[width in groups][strip]`.
    query_sums: Aligned,
}

impl Scratch {
    pub(super) fn new(sizes: Sizes) -> Self {
        let strip = sizes.strip();
        let (width, value_width) = (sizes.width, sizes.value_width);
        Self {
            query_columns: Aligned::new(width * strip),
            query_rows: Aligned::new(strip * width.next_multiple_of(LANES)),
            gradient_columns: Aligned::new(value_width * strip),
            gradient_rows: Aligned::new(strip * value_width.next_multiple_of(LANES)),
            logarithm: [0.0; STRIP],
            product: [0.0; STRIP],
            weights: Aligned::new(BLOCK * strip),
            scores: Aligned::new(BLOCK * strip),
            query_sums: Aligned::new(width.next_multiple_of(GROUP) * strip),
        }
    }

    /// Takes in what belongs to the queries.
    #[inline(always)]
    fn load(&mut self, gradients: &Gradients<'_>, head: usize, queries: &Range<usize>) {
        let sizes = gradients.sizes;
        let (strip, scale) = (sizes.strip(), sizes.scale());
        let all = || queries.clone();
        let query = gradients.query.head(head);
        let gradient = gradients.gradient.head(head);
        let output = gradients.output.head(head);
        query.columns(all(), scale, strip, &mut self.query_columns);
        gradient.columns(all(), 1.0, strip, &mut self.gradient_columns);
        self.query_rows.fill(0.0);
        let padded = sizes.width.next_multiple_of(LANES);
        query.rows(all(), scale, padded, &mut self.query_rows);
        self.gradient_rows.fill(0.0);
        let padded = sizes.value_width.next_multiple_of(LANES);
        gradient.rows(all(), 1.0, padded, &mut self.gradient_rows);
        let first = head / sizes.heads * sizes.queries;
        for (i, row) in all().enumerate() {
            let place = (first + row) * sizes.heads + head % sizes.heads;
            self.logarithm[i] = gradients.logarithms[place];
            self.product[i] = dot(gradient.row(row), output.row(row));
        }
        self.query_sums.fill(0.0);
    }

    /// The softmax's values and the gradient of the scores, for so many keys.
    #[inline(always)]
    fn scores(&mut self, keys: usize, strip: usize) {
        let live = keys * strip;
        let rows = self.weights[..live].chunks_exact_mut(strip);
        for (weights, scores) in rows.zip(self.scores.chunks_exact_mut(strip)) {
            let state = self.logarithm[..strip].iter().zip(&self.product[..strip]);
            let pairs = weights.iter_mut().zip(scores).zip(state);
            for ((weight, score), (logarithm, product)) in pairs {
                *weight = exp_below(*weight - logarithm);
                *score = *weight * (*score - product);
            }
        }
        // What fills up the last group is no key.
        let filled = keys.next_multiple_of(GROUP) * strip;
        self.weights[live..filled].fill(0.0);
        self.scores[live..filled].fill(0.0);
    }
}

/// A task at work.
pub(super) struct Running<'a, 'b> {
    pub(super) operands: &'a Operands<'a>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) task: Task<'b>,
    pub(super) sums: &'a mut Sums,
}

impl WithSimd for Running<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let gradients = self.operands.gradients;
        let Sizes { keys, .. } = gradients.sizes;
        let queries = self.task.queries.clone();
        let strip = gradients.sizes.strip();
        for first in queries.clone().step_by(strip) {
            let queries = first..queries.end.min(first + strip);
            self.scratch.load(gradients, self.task.head, &queries);
            for first in (0..keys).step_by(BLOCK) {
                self.block(simd, first..keys.min(first + BLOCK));
            }
            self.store(&queries);
        }
    }
}

impl Running<'_, '_> {
    /// Adds what a block of keys contributes.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, keys: Range<usize>) {
        let Gradients { sizes, wanted, .. } = *self.operands.gradients;
        let (strip, width, value_width) = (sizes.strip(), sizes.width, sizes.value_width);
        // With what fills up the last group.
        let filled = keys.start..keys.end.next_multiple_of(GROUP);
        let rows = |range: &Range<usize>, width| range.start * width..range.end * width;
        let all = self.task.head * sizes.keys.next_multiple_of(GROUP);
        let packed = all + filled.start..all + filled.end;
        let scratch = &mut *self.scratch;
        let left = &self.operands.grouped_keys[rows(&packed, width)];
        by_groups(
            simd,
            left,
            &scratch.query_columns,
            strip,
            &mut scratch.weights,
        );
        let left = &self.operands.grouped_values[rows(&packed, value_width)];
        by_groups(
            simd,
            left,
            &scratch.gradient_columns,
            strip,
            &mut scratch.scores,
        );
        scratch.scores(keys.len(), strip);
        if wanted.query {
            let row = width.next_multiple_of(GROUP);
            let all = self.task.head * sizes.keys;
            let left = &self.operands.keys[rows(&(all + keys.start..all + keys.end), row)];
            let scores = &scratch.scores[..keys.len() * strip];
            by_columns(simd, (left, row), scores, strip, &mut scratch.query_sums);
        }
        let live = filled.len() * strip;
        if wanted.key {
            let row = width.next_multiple_of(LANES);
            let sums = &mut self.sums.key[rows(&filled, row)];
            by_rows(
                simd,
                (&scratch.scores[..live], strip),
                &scratch.query_rows,
                row,
                sums,
            );
        }
        if wanted.value {
            let row = value_width.next_multiple_of(LANES);
            let sums = &mut self.sums.value[rows(&filled, row)];
            by_rows(
                simd,
                (&scratch.weights[..live], strip),
                &scratch.gradient_rows,
                row,
                sums,
            );
        }
    }

    /// Writes the gradient of the queries, if it is wanted.
    #[inline(always)]
    fn store(&mut self, queries: &Range<usize>) {
        let Gradients { sizes, wanted, .. } = *self.operands.gradients;
        if !wanted.query {
            return;
        }
        let (strip, scale) = (sizes.strip(), sizes.scale());
        let first = (queries.start - self.task.queries.start) * sizes.width;
        let rows = self.task.query[first..].chunks_exact_mut(sizes.width);
        for (i, row) in rows.take(queries.len()).enumerate() {
            for (x, sums) in row
                .iter_mut()
                .zip(self.scratch.query_sums.chunks_exact(strip))
            {
                *x = sums[i] * scale;
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
