//! The output, strip by strip of queries.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Sizes;
use super::pack::{Aligned, Heads, LANES, grouped, padded};
use super::product::{GROUP, by_columns, by_groups};
use super::softmax::{STRIP, Softmax};

/// Keys whose scores live at a time: with a strip, 24 KiB, which the first-level cache holds beside what makes them.
pub(super) const BLOCK: usize = 128;

/// Below so many multiplications waking the threads costs more than it saves.
pub(super) const PARALLEL: usize = 1 << 21;

/// The operands.
pub(super) struct Forward<'a> {
    query: Heads<'a>,
    /// `[head][group][width][GROUP]`.
    keys: Vec<f32>,
    /// `[head][key][value_rows]`.
    values: Vec<f32>,
    sizes: Sizes,
}

/// Memory that a thread uses again.
struct Scratch {
    /// `[width][strip]`.
    query: Aligned,
    /// `[BLOCK][strip]`.
    scores: Aligned,
    /// `[value_rows][strip]`.
    sums: Aligned,
}

impl Sizes {
    /// Queries of each strip but the last, of about one size: whole vectors.
    pub(super) fn strip(&self) -> usize {
        let strips = self.queries.div_ceil(STRIP);
        self.queries.div_ceil(strips).next_multiple_of(LANES)
    }

    /// Numbers of a value in whole groups.
    fn value_rows(&self) -> usize {
        self.value_width.next_multiple_of(GROUP)
    }

    /// Multiplications.
    pub(super) fn work(&self) -> usize {
        self.batch * self.heads * self.queries * self.keys * (self.width + self.value_width)
    }
}

impl<'a> Forward<'a> {
    pub(super) fn new(query: Heads<'a>, key: Heads<'_>, value: Heads<'_>, sizes: Sizes) -> Self {
        let heads = sizes.batch * sizes.heads;
        Self {
            query,
            keys: grouped(key, heads),
            values: padded(value, heads, sizes.value_rows()),
            sizes,
        }
    }

    /// The output, `[batch, queries, heads, value_width]`, and the logarithms of the softmax's denominators,
    /// `[batch, queries, heads]`, which are empty unless they are to be kept.
    pub(super) fn run(&self, keep: bool) -> (Vec<f32>, Vec<f32>) {
        let Sizes {
            batch,
            heads,
            queries,
            value_width,
            ..
        } = self.sizes;
        let strip = self.sizes.strip();
        let mut output = vec![0.0; batch * queries * heads * value_width];
        let mut logarithms = vec![0.0; if keep { batch * queries * heads } else { 0 }];
        let row = heads * value_width;
        // One task is all heads of a strip, whose output lies together.
        let outputs = output.chunks_mut(queries * row);
        let tasks = outputs.enumerate().flat_map(|(batch, output)| {
            let strips = output.chunks_mut(strip * row).enumerate();
            strips.map(move |(index, output)| (batch, index * strip, output))
        });
        let mut kept = logarithms
            .chunks_mut(queries * heads)
            .flat_map(|rows| rows.chunks_mut(strip * heads));
        let tasks: Vec<_> = tasks
            .map(|(batch, first, output)| Task {
                batch,
                queries: first..first + output.len() / row,
                output,
                logarithms: kept.next(),
            })
            .collect();
        let arch = Arch::new();
        let run = |scratch: &mut Scratch, task: Task<'_>| {
            arch.dispatch(Running {
                forward: self,
                scratch,
                task,
            });
        };
        if self.sizes.work() < PARALLEL {
            let mut scratch = self.scratch();
            tasks.into_iter().for_each(|task| run(&mut scratch, task));
        } else {
            tasks
                .into_par_iter()
                .with_max_len(1)
                .for_each_init(|| self.scratch(), run);
        }
        (output, logarithms)
    }

    fn scratch(&self) -> Scratch {
        let strip = self.sizes.strip();
        Scratch {
            query: Aligned::new(self.sizes.width * strip),
            scores: Aligned::new(BLOCK * strip),
            sums: Aligned::new(self.sizes.value_rows() * strip),
        }
    }
}

/// A strip of queries in all heads of a batch.
struct Task<'a> {
    batch: usize,
    queries: Range<usize>,
    /// `[queries][heads][value_width]`.
    output: &'a mut [f32],
    /// `[queries][heads]`.
    logarithms: Option<&'a mut [f32]>,
}

struct Running<'a, 'b> {
    forward: &'a Forward<'a>,
    scratch: &'a mut Scratch,
    task: Task<'b>,
}

impl WithSimd for Running<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for head in 0..self.forward.sizes.heads {
            self.head(simd, head);
        }
    }
}

impl Running<'_, '_> {
    #[inline(always)]
    fn head<S: Simd>(&mut self, simd: S, head: usize) {
        let Sizes {
            heads,
            keys,
            width,
            value_width,
            ..
        } = self.forward.sizes;
        let (strip, rows) = (self.forward.sizes.strip(), self.forward.sizes.value_rows());
        let index = self.task.batch * heads + head;
        let packed = keys.next_multiple_of(GROUP) * width;
        let grouped_keys = &self.forward.keys[index * packed..(index + 1) * packed];
        let values = &self.forward.values[index * keys * rows..(index + 1) * keys * rows];
        let Scratch {
            query,
            scores,
            sums,
        } = &mut *self.scratch;
        let scale = self.forward.sizes.scale();
        let source = self.forward.query.head(index);
        source.columns(self.task.queries.clone(), scale, strip, query);
        sums.fill(0.0);
        let mut softmax = Softmax::new();
        let blocks = grouped_keys.chunks(BLOCK * width);
        for (keys, values) in blocks.zip(values.chunks(BLOCK * rows)) {
            let count = values.len() / rows;
            by_groups(simd, keys, query, strip, scores);
            let scores = &mut scores[..count * strip];
            let factor = softmax.take(scores, strip);
            for row in sums.chunks_exact_mut(strip) {
                for (sum, factor) in row.iter_mut().zip(&factor) {
                    *sum *= factor;
                }
            }
            by_columns(simd, (values, rows), scores, strip, sums);
        }
        let normalisers = softmax.normalisers();
        let outputs = self.task.output.chunks_exact_mut(heads * value_width);
        for (i, (output, normaliser)) in outputs.zip(normalisers).enumerate() {
            let output = &mut output[head * value_width..(head + 1) * value_width];
            for (output, sums) in output.iter_mut().zip(sums.chunks_exact(strip)) {
                *output = sums[i] * normaliser;
            }
        }
        if let Some(logarithms) = &mut self.task.logarithms {
            for (i, row) in logarithms.chunks_exact_mut(heads).enumerate() {
                row[head] = softmax.logarithm(i);
            }
        }
    }
}
