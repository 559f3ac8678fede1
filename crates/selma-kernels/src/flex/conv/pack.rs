//! Copies into the order in which the kernels read.
#![allow(
    clippy::indexing_slicing,
    reason = "the ranges follow from the layout, whose sizes the buffers have"
)]

use core::ops::Range;

use super::axis::Outputs;
use super::layout::{Layout, Plan};
use super::tile::BLOCK;

/// The images of a task: `[images, channels, height, width]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) channels: usize,
    /// Numbers of a channel of an image.
    pub(super) plane: usize,
}

impl<'a> Images<'a> {
    /// The images from `first` on.
    pub(super) fn part(&self, first: usize, images: usize) -> Self {
        let image = self.channels * self.plane;
        Self {
            numbers: &self.numbers[first * image..(first + images) * image],
            ..*self
        }
    }

    /// How many images there are.
    pub(super) fn count(&self) -> usize {
        self.numbers
            .len()
            .checked_div(self.channels * self.plane)
            .unwrap_or(0)
    }

    fn plane(&self, image: usize, channel: usize) -> &'a [f32] {
        let start = (image * self.channels + channel) * self.plane;
        &self.numbers[start..start + self.plane]
    }
}

/// Packs the rows from output row `first` on of some `channels` into `packed`, all of it.
pub(super) fn source(
    plan: &Plan,
    layout: &Layout,
    images: &Images<'_>,
    channels: Range<usize>,
    first: usize,
    packed: &mut Vec<f32>,
) {
    packed.resize(channels.len() * layout.channel, 0.0);
    let phases = packed.chunks_exact_mut(layout.phase);
    for (index, packed) in phases.enumerate() {
        let (channel, phase) = (
            channels.start + index / plan.phases(),
            index % plan.phases(),
        );
        let (row_phase, column_phase) = (phase / plan.columns.phases, phase % plan.columns.phases);
        let (zeros, numbers) = plan.columns.span(column_phase);
        let start = plan.columns.place(column_phase, zeros).unwrap_or(0);
        let (lines, spare) = packed.split_at_mut(layout.rows * layout.images * layout.pitch);
        for (row, line) in lines
            .chunks_exact_mut(layout.images * layout.pitch)
            .enumerate()
        {
            let Some(row) = plan.rows.place(row_phase, first + row) else {
                line.fill(0.0);
                continue;
            };
            for (image, line) in line.chunks_exact_mut(layout.pitch).enumerate() {
                let width = plan.columns.source;
                let from = &images.plane(image, channel)[row * width..(row + 1) * width];
                line[..zeros].fill(0.0);
                let numbers = numbers.min(line.len() - zeros);
                let to = &mut line[zeros..zeros + numbers];
                if plan.columns.phases == 1 {
                    copy(to, &from[start..start + numbers]);
                } else {
                    let from = from[start..].iter().step_by(plan.columns.phases);
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
                line[zeros + numbers..].fill(0.0);
            }
        }
        spare.fill(0.0);
    }
}

/// Packs so many `channels` of outputs from output row `first` on by position, with zeros where there is no output.
pub(super) fn outputs(
    plan: &Plan,
    layout: &Layout,
    images: &Images<'_>,
    channels: Range<usize>,
    first: usize,
    packed: &mut Vec<f32>,
) {
    let width = plan.columns.destination;
    packed.resize(channels.len() * layout.padded(), 0.0);
    for (channel, packed) in channels.zip(packed.chunks_exact_mut(layout.padded())) {
        let (lines, spare) = packed.split_at_mut(layout.positions);
        for (index, line) in lines.chunks_exact_mut(layout.pitch).enumerate() {
            let (row, image) = (first + index / layout.images, index % layout.images);
            let from = &images.plane(image, channel)[row * width..(row + 1) * width];
            let (numbers, rest) = line.split_at_mut(width);
            copy(numbers, from);
            rest.fill(0.0);
        }
        spare.fill(0.0);
    }
}

/// The rows of the destination that a task writes: of each image and channel a band.
pub(super) struct Band<'a, 'b> {
    pub(super) planes: &'a mut [&'b mut [f32]],
    pub(super) width: usize,
}

impl Band<'_, '_> {
    /// Takes the sums of one channel of each image, the planes `channel`, `channel + channels`, ... Those of each line
    /// begin at `starts`.
    pub(super) fn unpack(
        &mut self,
        layout: &Layout,
        (rows, columns): (&Outputs, &Outputs),
        (channel, channels): (usize, usize),
        starts: &[usize],
        sums: &[f32],
    ) {
        let planes = self.planes.iter_mut().skip(channel).step_by(channels);
        for (image, plane) in planes.enumerate() {
            let lines = plane
                .chunks_exact_mut(self.width)
                .skip(rows.start)
                .step_by(rows.step);
            for (line, start) in lines.zip(starts) {
                let at = start + image * layout.pitch;
                let from = &sums[at..at + columns.count];
                if columns.step == 1 {
                    copy(line, from);
                } else {
                    let to = line.iter_mut().skip(columns.start).step_by(columns.step);
                    to.zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        }
    }
}

/// Copies numbers, few of them without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    if to.len() > 32 {
        to.copy_from_slice(from);
        return;
    }
    let (to_fours, to_rest) = to.as_chunks_mut::<4>();
    let (fours, rest) = from.as_chunks::<4>();
    for (to, from) in to_fours.iter_mut().zip(fours) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = *from;
    }
}

/// The weights of a convolution: `[outputs, inputs, area]`, or `[inputs, outputs, area]` if `turned`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Taps of the kernel.
    pub(super) area: usize,
    pub(super) turned: bool,
}

impl Weights<'_> {
    /// Packs some taps for some outputs, from a whole block on, and inputs: `[block][input][tap][BLOCK]`, with zeros
    /// behind the last output.
    pub(super) fn pack(
        &self,
        outputs: Range<usize>,
        inputs: Range<usize>,
        taps: &[usize],
        packed: &mut [f32],
    ) {
        let (places, _) = packed.as_chunks_mut::<BLOCK>();
        let block = inputs.len() * taps.len();
        if !outputs.len().is_multiple_of(BLOCK) {
            let last = outputs.len() / BLOCK * block;
            places[last..].fill([0.0; BLOCK]);
        }
        if !self.turned && taps.len() == self.area {
            for (index, output) in outputs.enumerate() {
                let row = output * self.inputs;
                let row = row + inputs.start..row + inputs.end;
                let row = &self.numbers[row.start * self.area..row.end * self.area];
                let places = &mut places[index / BLOCK * block..][..block];
                for (place, &number) in places.iter_mut().zip(row) {
                    place[index % BLOCK] = number;
                }
            }
            return;
        }
        // The kernels of all outputs of an input lie together if `turned`.
        for (place, input) in inputs.enumerate() {
            for (index, output) in outputs.clone().enumerate() {
                let at = if self.turned {
                    input * self.outputs + output
                } else {
                    output * self.inputs + input
                };
                let kernel = &self.numbers[at * self.area..(at + 1) * self.area];
                let start = index / BLOCK * block + place * taps.len();
                let places = &mut places[start..start + taps.len()];
                for (place, &tap) in places.iter_mut().zip(taps) {
                    place[index % BLOCK] = kernel[tap];
                }
            }
        }
    }
}
