//! The gradient of the weight of a convolution.

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::correlate::{Operands, correlate};
use super::layout::{Cut, Layout, Plan};
use super::pack::{self, Images};

/// Tasks there shall be, so that several threads have work, each of so many multiplications at least.
const TASKS: usize = 16;
const TASK: usize = 1 << 22;

/// Numbers of the partial sums of all tasks at most.
const PARTIAL: usize = 1 << 21;

/// The gradient of the weight of the convolution of `x` by `plan`, for the gradient `dy` of its output.
///
/// Each task sums over a part of the images for some of the output channels, in an order that the sizes alone decide.
pub(super) fn gradient(plan: &Plan, x: Images<'_>, dy: Images<'_>) -> Vec<f32> {
    let row = x.channels * plan.taps();
    let len = dy.channels * row;
    let cut = plan.cut(x.count(), usize::MAX);
    let bands = plan.rows.count().div_ceil(cut.rows);
    let units = x.count().div_ceil(cut.images) * bands;
    let tasks = (dy.numbers.len() * row / TASK).clamp(1, TASKS);
    let parts = units.min(tasks).min((PARTIAL / len).max(1));
    let units_per_part = units.div_ceil(parts);
    let parts = units.div_ceil(units_per_part);
    let channels = dy
        .channels
        .div_ceil(tasks.div_ceil(parts))
        .next_multiple_of(16);
    let mut sums = vec![0.0; parts * len];
    let arch = Arch::new();
    let tasks: Vec<_> = sums
        .chunks_mut(len)
        .enumerate()
        .flat_map(|(part, sums)| {
            let units = part * units_per_part..units.min((part + 1) * units_per_part);
            sums.chunks_mut(channels * row)
                .enumerate()
                .map(move |(chunk, sums)| {
                    let first = chunk * channels;
                    let channels = first..first + sums.len() / row;
                    (units.clone(), channels, sums)
                })
        })
        .collect();
    tasks.into_par_iter().with_max_len(1).for_each_init(
        Scratch::default,
        |scratch, (units, channels, sums)| {
            arch.dispatch(Run {
                plan,
                x,
                dy,
                cut,
                units,
                channels,
                sums,
                scratch,
            });
        },
    );
    let (total, parts) = sums.split_at_mut(len);
    for part in parts.chunks_exact(len) {
        total.iter_mut().zip(part).for_each(|(to, &sum)| *to += sum);
    }
    total.to_vec()
}

/// Memory that a thread uses again.
#[derive(Default)]
struct Scratch {
    source: Vec<f32>,
    outputs: Vec<f32>,
}

/// Runs a task.
struct Run<'a> {
    plan: &'a Plan,
    x: Images<'a>,
    dy: Images<'a>,
    cut: Cut,
    /// Groups of images times bands of rows.
    units: Range<usize>,
    /// Channels of the output.
    channels: Range<usize>,
    /// `[channels, inputs, kernel]`.
    sums: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plan = self.plan;
        let bands = plan.rows.count().div_ceil(self.cut.rows);
        let Scratch { source, outputs } = self.scratch;
        let area = plan.taps();
        let row = self.x.channels * area;
        let mut taps = Vec::new();
        for unit in self.units {
            let image = unit / bands * self.cut.images;
            let images = self.cut.images.min(self.x.count() - image);
            let first = unit % bands * self.cut.rows;
            let rows = self.cut.rows.min(plan.rows.count() - first);
            let layout = Layout::new(plan, images, rows);
            let offsets: Vec<usize> = plan
                .passes()
                .flat_map(|pass| layout.offsets(pass))
                .collect();
            let (x, dy) = (self.x.part(image, images), self.dy.part(image, images));
            pack::outputs(plan, &layout, &dy, self.channels.clone(), first, outputs);
            let chunk = layout.chunk(x.channels);
            for channel in (0..x.channels).step_by(chunk) {
                let channels = channel..x.channels.min(channel + chunk);
                taps.clear();
                for index in 0..channels.len() {
                    taps.extend(offsets.iter().map(|offset| index * layout.channel + offset));
                }
                pack::source(plan, &layout, &x, channels, first, source);
                let operands = Operands {
                    outputs,
                    positions: layout.padded(),
                    source,
                    taps: &taps,
                };
                correlate(simd, operands, self.sums, row, channel * area);
            }
        }
    }
}
