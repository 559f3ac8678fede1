//! The convolution, and the gradient of its input, which is one too.

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::layout::{Cut, Layout, Plan};
use super::pack::{self, Band, Images, Weights};
use super::tile::{self, BLOCK, Operands};

/// Below so many multiplications waking the threads costs more than it saves.
const PARALLEL: usize = 1 << 18;

/// Tasks there shall be, so that several threads have work, each of so many multiplications at least. Those of the same
/// images pack the same source.
const TASKS: usize = 8;
const TASK: usize = 1 << 23;

/// From so many groups of images and bands of rows on the weights are packed once for all.
const SHARED: usize = 3;

/// Blocks of outputs that are packed together: the longer what lies together, the fewer pages are visited.
const GROUP: usize = 4;

/// Weights that a thread packs at least.
const MANY: usize = 1 << 14;

/// Inputs whose weights are packed at a time within a task.
const INPUTS: usize = 32;

/// Sums of a task at most, which the second-level cache holds.
const SUMS: usize = 1 << 16;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: Images<'a>,
    pub(super) weights: Weights<'a>,
    pub(super) bias: Option<&'a [f32]>,
}

/// Part of the output: a band of rows of some channels of some images.
struct Task<'a> {
    images: Range<usize>,
    channels: Range<usize>,
    /// The first output row, and how many there are of the longest phase.
    first: usize,
    rows: usize,
    /// `[images, channels]`.
    planes: Vec<&'a mut [f32]>,
}

/// Memory that a thread uses again.
#[derive(Default)]
struct Scratch {
    source: Vec<f32>,
    weights: Vec<f32>,
    sums: Vec<f32>,
}

impl Convolution<'_> {
    /// The output, `[batch, outputs, height, width]`.
    pub(super) fn run(&self) -> Vec<f32> {
        let plan = self.plan;
        let outputs = self.weights.outputs;
        let plane = plan.rows.destination * plan.columns.destination;
        let mut out = vec![0.0; self.source.count() * outputs * plane];
        let work = out.len() * self.weights.inputs * self.weights.area;
        let cut = plan.cut(self.source.count(), SUMS / outputs);
        let units = self.source.count().div_ceil(cut.images) * plan.rows.count().div_ceil(cut.rows);
        let packed = (units >= SHARED).then(|| self.pack_weights());
        let least = (work / TASK).clamp(1, TASKS);
        let tasks = self.tasks(cut, units, least, &mut out);
        let arch = Arch::new();
        let run = |scratch: &mut Scratch, task: Task<'_>| {
            arch.dispatch(Running {
                convolution: self,
                packed: packed.as_deref(),
                task,
                scratch,
            });
        };
        if work < PARALLEL {
            let mut scratch = Scratch::default();
            tasks.into_iter().for_each(|task| run(&mut scratch, task));
        } else {
            tasks
                .into_par_iter()
                .with_max_len(1)
                .for_each_init(Scratch::default, run);
        }
        out
    }

    /// The weights of each pass, by block of outputs.
    fn pack_weights(&self) -> Vec<Vec<f32>> {
        let Weights {
            outputs, inputs, ..
        } = self.weights;
        let passes = self.plan.passes().map(|pass| {
            let taps = pass.taps(self.plan.kernel_columns);
            let block = inputs * taps.len() * BLOCK;
            let mut packed = vec![0.0; outputs.div_ceil(BLOCK) * block];
            packed
                .par_chunks_mut((GROUP * block).max(1))
                .enumerate()
                .with_min_len(MANY.div_ceil(GROUP * block.max(1)))
                .for_each(|(index, packed)| {
                    let first = index * GROUP * BLOCK;
                    let outputs = first..outputs.min(first + GROUP * BLOCK);
                    self.weights.pack(outputs, 0..inputs, &taps, packed);
                });
            packed
        });
        passes.collect()
    }

    /// Cuts the output into `least` tasks or more, which the sizes alone decide.
    fn tasks<'a>(&self, cut: Cut, units: usize, least: usize, out: &'a mut [f32]) -> Vec<Task<'a>> {
        let plan = self.plan;
        let outputs = self.weights.outputs;
        let batch = self.source.count();
        let step = plan.rows.outputs.len();
        let width = plan.columns.destination;
        let count = plan.rows.count();
        let bands = count.div_ceil(cut.rows);
        let chunk = outputs
            .div_ceil(least.div_ceil(units))
            .next_multiple_of(4 * BLOCK);
        let chunks = outputs.div_ceil(chunk);
        let mut tasks: Vec<Task<'a>> = (0..units * chunks)
            .map(|index| {
                let (unit, channel) = (index / chunks, index % chunks * chunk);
                let image = unit / bands * cut.images;
                let first = unit % bands * cut.rows;
                Task {
                    images: image..batch.min(image + cut.images),
                    channels: channel..outputs.min(channel + chunk),
                    first,
                    rows: cut.rows.min(count - first),
                    planes: Vec::new(),
                }
            })
            .collect();
        let planes = out.chunks_mut(plan.rows.destination * width);
        for (index, plane) in planes.enumerate() {
            let (image, channel) = (index / outputs, index % outputs);
            for (band, rows) in plane.chunks_mut(cut.rows * step * width).enumerate() {
                let unit = image / cut.images * bands + band;
                if let Some(task) = tasks.get_mut(unit * chunks + channel / chunk) {
                    task.planes.push(rows);
                }
            }
        }
        tasks
    }
}

/// Runs a task.
struct Running<'a, 'b> {
    convolution: &'a Convolution<'a>,
    /// The weights of each pass, if they are packed already.
    packed: Option<&'a [Vec<f32>]>,
    task: Task<'b>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Running<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Convolution { plan, source, .. } = *self.convolution;
        let Task {
            images,
            channels,
            first,
            rows,
            mut planes,
        } = self.task;
        let layout = Layout::new(plan, images.len(), rows);
        let part = source.part(images.start, images.len());
        let inputs = match self.packed {
            Some(_) => layout.chunk(source.channels),
            None => layout.chunk(source.channels).min(INPUTS),
        };
        let mut band = Band {
            planes: &mut planes,
            width: plan.columns.destination,
        };
        for (index, pass) in plan.passes().enumerate() {
            let packed = self.packed.and_then(|packed| packed.get(index));
            let taps = pass.taps(plan.kernel_columns);
            let offsets = layout.offsets(pass);
            let (runs, starts) = layout.runs(&plan.rows, pass, first);
            let length: usize = runs.iter().map(|run| run.sums).sum();
            let stride = taps.len() * BLOCK;
            let blocks = channels.len().div_ceil(BLOCK);
            self.scratch.sums.resize(blocks * BLOCK * length, 0.0);
            for chunk in (0..source.channels).step_by(inputs) {
                let chunk = chunk..source.channels.min(chunk + inputs);
                if index == 0 || inputs < source.channels {
                    let to = &mut self.scratch.source;
                    pack::source(plan, &layout, &part, chunk.clone(), first, to);
                }
                if packed.is_none() {
                    let to = &mut self.scratch.weights;
                    to.resize(blocks * chunk.len() * stride, 0.0);
                    let weights = &self.convolution.weights;
                    weights.pack(channels.clone(), chunk.clone(), &taps, to);
                }
                let sums = self.scratch.sums.chunks_mut(BLOCK * length);
                for (index, sums) in sums.enumerate() {
                    let block = channels.start + index * BLOCK;
                    let weights = match packed {
                        Some(packed) => {
                            let at = block / BLOCK * source.channels + chunk.start;
                            packed.get(at * stride..(at + chunk.len()) * stride)
                        }
                        None => {
                            let length = chunk.len() * stride;
                            let weights = &self.scratch.weights;
                            weights.get(index * length..(index + 1) * length)
                        }
                    };
                    let operands = Operands {
                        source: &self.scratch.source,
                        channel: layout.channel,
                        offsets: &offsets,
                        weights: weights.unwrap_or_default(),
                        runs: &runs,
                        start: (chunk.start == 0).then(|| self.convolution.bias(block)),
                    };
                    tile::block(simd, operands, channels.end - block, length, sums);
                }
            }
            let sums = self.scratch.sums.chunks_exact(length);
            for (channel, sums) in sums.take(channels.len()).enumerate() {
                let outputs = (pass.rows, pass.columns);
                let channel = (channel, channels.len());
                band.unpack(&layout, outputs, channel, &starts, sums);
            }
        }
    }
}

impl Convolution<'_> {
    /// The bias of a block of outputs from `first` on.
    fn bias(&self, first: usize) -> [f32; BLOCK] {
        let mut block = [0.0; BLOCK];
        if let Some(bias) = self.bias.and_then(|bias| bias.get(first..)) {
            block.iter_mut().zip(bias).for_each(|(to, &b)| *to = b);
        }
        block
    }
}
