//! Copies into the order in which the kernels read.
#![allow(
    clippy::indexing_slicing,
    reason = "the ranges follow from the layout, whose sizes the buffers have"
)]

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

/// Packs the rows from output row `first` on into `packed`, all of it.
pub(super) fn source(
    plan: &Plan,
    layout: &Layout,
    images: &Images<'_>,
    first: usize,
    packed: &mut Vec<f32>,
) {
    packed.resize(images.channels * layout.channel, 0.0);
    let phases = packed.chunks_exact_mut(layout.phase);
    for (index, packed) in phases.enumerate() {
        let (channel, phase) = (index / plan.phases(), index % plan.phases());
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
                    to.copy_from_slice(&from[start..start + numbers]);
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
    channels: core::ops::Range<usize>,
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
            numbers.copy_from_slice(from);
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
    /// Takes the positions of one channel of each image: those of the planes `channel`, `channel + channels`, ...
    pub(super) fn unpack(
        &mut self,
        layout: &Layout,
        rows: &Outputs,
        columns: &Outputs,
        (channel, channels): (usize, usize),
        positions: &[f32],
    ) {
        let planes = self.planes.iter_mut().skip(channel).step_by(channels);
        for (image, plane) in planes.enumerate() {
            let lines = plane
                .chunks_exact_mut(self.width)
                .skip(rows.start)
                .step_by(rows.step);
            for (row, line) in lines.enumerate() {
                let at = (row * layout.images + image) * layout.pitch;
                let from = &positions[at..at + columns.count];
                if columns.step == 1 {
                    line.copy_from_slice(from);
                } else {
                    let to = line.iter_mut().skip(columns.start).step_by(columns.step);
                    to.zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        }
    }
}

/// The weights of the taps `taps` in blocks of [`BLOCK`] output channels: `[block][input][tap][BLOCK]`, with zeros
/// behind the last channel. `turned` has the two channels change places: `weight` is `[input, output, kernel]` then.
pub(super) fn weights(
    weight: &[f32],
    [outputs, inputs, area]: [usize; 3],
    taps: &[usize],
    turned: bool,
) -> Vec<f32> {
    let block = inputs * taps.len() * BLOCK;
    let mut packed = vec![0.0; outputs.div_ceil(BLOCK) * block];
    for (index, packed) in packed.chunks_exact_mut(block.max(1)).enumerate() {
        let channels = index * BLOCK..outputs.min((index + 1) * BLOCK);
        for (lane, output) in channels.enumerate() {
            for (input, packed) in packed.chunks_exact_mut(taps.len() * BLOCK).enumerate() {
                let at = if turned {
                    input * outputs + output
                } else {
                    output * inputs + input
                };
                let kernel = &weight[at * area..(at + 1) * area];
                for (&tap, packed) in taps.iter().zip(packed.chunks_exact_mut(BLOCK)) {
                    packed[lane] = kernel[tap];
                }
            }
        }
    }
    packed
}
