//! The convolution, and the gradient of its input, which is one too.

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::layout::{Layout, Plan};
use super::pack::{self, Band, Images};
use super::tile::{self, BLOCK, Operands};

/// Below so many multiplications waking the threads costs more than it saves.
const PARALLEL: usize = 1 << 18;

/// Tasks there shall be at least, so that several threads have work.
const TASKS: usize = 8;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: Images<'a>,
    /// `[outputs, inputs, kernel]`, or `[inputs, outputs, kernel]` if `turned`.
    pub(super) weight: &'a [f32],
    /// Taps of the kernel.
    pub(super) area: usize,
    pub(super) turned: bool,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) outputs: usize,
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
    block: Vec<f32>,
}

impl Convolution<'_> {
    /// The output, `[batch, outputs, height, width]`.
    pub(super) fn run(&self) -> Vec<f32> {
        let plan = self.plan;
        let sizes = [self.outputs, self.source.channels, self.area];
        let weights: Vec<Vec<f32>> = plan
            .passes()
            .map(|pass| {
                let taps = pass.taps(plan.kernel_columns);
                pack::weights(self.weight, sizes, &taps, self.turned)
            })
            .collect();
        let plane = plan.rows.destination * plan.columns.destination;
        let mut out = vec![0.0; self.source.count() * self.outputs * plane];
        let work = out.len() * self.source.channels * self.area;
        let tasks = self.tasks(&mut out);
        let arch = Arch::new();
        let run = |scratch: &mut Scratch, task: Task<'_>| {
            arch.dispatch(Run {
                convolution: self,
                weights: &weights,
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

    /// Cuts the output into tasks, which the sizes alone decide.
    fn tasks<'a>(&self, out: &'a mut [f32]) -> Vec<Task<'a>> {
        let plan = self.plan;
        let batch = self.source.count();
        let cut = plan.cut(batch, self.source.channels);
        let step = plan.rows.outputs.len();
        let width = plan.columns.destination;
        let count = plan.rows.count();
        let bands = count.div_ceil(cut.rows);
        let units = batch.div_ceil(cut.images) * bands;
        let chunk = self
            .outputs
            .div_ceil(TASKS.div_ceil(units))
            .next_multiple_of(2 * BLOCK);
        let chunks = self.outputs.div_ceil(chunk);
        let mut tasks: Vec<Task<'a>> = (0..units * chunks)
            .map(|index| {
                let (unit, channel) = (index / chunks, index % chunks * chunk);
                let image = unit / bands * cut.images;
                let first = unit % bands * cut.rows;
                Task {
                    images: image..batch.min(image + cut.images),
                    channels: channel..self.outputs.min(channel + chunk),
                    first,
                    rows: cut.rows.min(count - first),
                    planes: Vec::new(),
                }
            })
            .collect();
        let planes = out.chunks_mut(plan.rows.destination * width);
        for (index, plane) in planes.enumerate() {
            let (image, channel) = (index / self.outputs, index % self.outputs);
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
struct Run<'a, 'b> {
    convolution: &'a Convolution<'a>,
    weights: &'a [Vec<f32>],
    task: Task<'b>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Run<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Convolution {
            plan, source, bias, ..
        } = *self.convolution;
        let Task {
            images,
            channels,
            first,
            rows,
            mut planes,
        } = self.task;
        let Scratch {
            source: packed,
            block,
        } = self.scratch;
        let layout = Layout::new(plan, images.len(), rows);
        let part = source.part(images.start, images.len());
        pack::source(plan, &layout, &part, first, packed);
        let padded = layout.padded();
        block.resize(BLOCK * padded, 0.0);
        let mut band = Band {
            planes: &mut planes,
            width: plan.columns.destination,
        };
        for (pass, weights) in plan.passes().zip(self.weights) {
            let offsets = layout.offsets(pass);
            let stride = source.channels * offsets.len() * BLOCK;
            for start in channels.clone().step_by(BLOCK) {
                let count = BLOCK.min(channels.end - start);
                let mut biases = [0.0; BLOCK];
                let bias = bias.and_then(|bias| bias.get(start..start + count));
                let bias = bias.unwrap_or_default();
                biases.iter_mut().zip(bias).for_each(|(to, &b)| *to = b);
                let at = start / BLOCK * stride;
                let operands = Operands {
                    source: packed,
                    channel: layout.channel,
                    offsets: &offsets,
                    weights: weights.get(at..at + stride).unwrap_or_default(),
                    bias: biases,
                };
                tile::block(simd, operands, count, padded, block);
                for (lane, positions) in block.chunks_exact(padded).take(count).enumerate() {
                    let channel = (start + lane - channels.start, channels.len());
                    band.unpack(&layout, pass.rows, pass.columns, channel, positions);
                }
            }
        }
    }
}
