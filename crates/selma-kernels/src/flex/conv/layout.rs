//! How the source of a convolution is cut into tasks and packed.
//!
//! A task takes some images and a band of their rows. Its packed source holds, of each channel and phase, all rows one
//! after another, and of each row the images side by side; outputs have *positions* in the same order. Then a tap of
//! the kernel is one offset for all positions, whatever the size of the image: a few positions at the end of each row
//! are computed in vain, and small images fill long vectors together.

use core::ops::Range;

use super::axis::{Axis, Outputs, Tap};

/// Lanes of the widest vectors: what is packed has this many numbers to spare.
pub(super) const LANES: usize = 16;

/// Positions of a task at most, unless a single row has more.
const MANY: usize = 1024;

/// Positions of a task at least, if there are as many: fewer do not pay for streaming the weights through.
const ENOUGH: usize = 256;

/// Positions that small images have together.
const TOGETHER: usize = 512;

/// Positions of a line from which on it pays to leave taps that read nothing but padding out, line by line.
const LINE: usize = 64;

/// Numbers of the packed source that stay in the second-level cache, next to the sums and the weights.
const CACHED: usize = 1 << 15;

/// The two axes of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    /// Columns of the kernel.
    pub(super) kernel_columns: usize,
}

impl Plan {
    /// Phases of the source.
    pub(super) fn phases(&self) -> usize {
        self.rows.phases * self.columns.phases
    }

    /// The phases of the destination.
    pub(super) fn passes(&self) -> impl Iterator<Item = Pass<'_>> {
        self.rows.outputs.iter().flat_map(move |rows| {
            self.columns
                .outputs
                .iter()
                .map(move |columns| Pass { rows, columns })
        })
    }

    /// Taps of the kernel.
    pub(super) fn taps(&self) -> usize {
        let passes = self.passes();
        passes
            .map(|p| p.rows.taps.len() * p.columns.taps.len())
            .sum()
    }

    /// How a source of `batch` images is cut, with about `positions` in a task.
    pub(super) fn cut(&self, batch: usize, positions: usize) -> Cut {
        let pitch = self.columns.pitch().max(1);
        let rows = self.rows.count().max(1);
        let image = rows * pitch;
        let few = positions.clamp(ENOUGH, TOGETHER);
        if image < few {
            return Cut {
                images: even(batch.max(1), TOGETHER.div_ceil(image)),
                rows,
            };
        }
        let band = positions.clamp(ENOUGH, MANY).div_ceil(pitch);
        Cut {
            images: 1,
            rows: even(rows, band),
        }
    }
}

/// Parts of even size of a whole, each about `part`.
pub(super) fn even(whole: usize, part: usize) -> usize {
    let part = part.clamp(1, whole);
    whole.div_ceil(whole.div_ceil(part))
}

/// Outputs that see the same taps along both axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    pub(super) rows: &'a Outputs,
    pub(super) columns: &'a Outputs,
}

impl Pass<'_> {
    /// The places of the taps in the kernel.
    pub(super) fn taps(&self, kernel_columns: usize) -> Vec<usize> {
        let pairs = self.rows.taps.iter().flat_map(|row| {
            let columns = self.columns.taps.iter();
            columns.map(move |column| row.index * kernel_columns + column.index)
        });
        pairs.collect()
    }
}

/// What a task takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) images: usize,
    /// Rows of each phase of the destination.
    pub(super) rows: usize,
}

/// Positions that see the same taps, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first position.
    pub(super) position: usize,
    /// The place of its sum.
    pub(super) sum: usize,
    /// How many sums there are, in whole vectors.
    pub(super) sums: usize,
    /// Which taps of the pass they see.
    pub(super) taps: Range<usize>,
}

/// How the packed source of a task lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) images: usize,
    pub(super) pitch: usize,
    /// Rows of the packed source.
    pub(super) rows: usize,
    /// Positions of the outputs.
    pub(super) positions: usize,
    /// Numbers of one phase of one channel.
    pub(super) phase: usize,
    /// Numbers of one channel.
    pub(super) channel: usize,
    column_phases: usize,
}

impl Layout {
    /// The layout of a task of so many `images` and output `rows`.
    pub(super) fn new(plan: &Plan, images: usize, rows: usize) -> Self {
        let pitch = plan.columns.pitch();
        let line = images * pitch;
        let packed = rows + plan.rows.reach();
        let spare = plan.columns.reach() + LANES;
        // An odd number of cache lines, lest all channels fall into the same few places of the cache.
        let phase = ((packed * line + spare).div_ceil(LANES) | 1) * LANES;
        Self {
            images,
            pitch,
            rows: packed,
            positions: rows * line,
            phase,
            channel: phase * plan.phases(),
            column_phases: plan.columns.phases,
        }
    }

    /// The offset of each tap of `pass` from the position of an output, within a channel.
    pub(super) fn offsets(&self, pass: Pass<'_>) -> Vec<usize> {
        let pairs = pass.rows.taps.iter().flat_map(|row| {
            pass.columns.taps.iter().map(move |column| {
                (row.phase * self.column_phases + column.phase) * self.phase
                    + row.shift * self.images * self.pitch
                    + column.shift
            })
        });
        pairs.collect()
    }

    /// Positions in whole vectors.
    pub(super) fn padded(&self) -> usize {
        self.positions.next_multiple_of(LANES)
    }

    /// Channels that are packed at a time, of so many.
    pub(super) fn chunk(&self, channels: usize) -> usize {
        even(channels.max(1), (CACHED / self.channel).max(8))
    }

    /// The runs of a pass from output row `first` on, and the place of the first sum of each line.
    pub(super) fn runs(&self, axis: &Axis, pass: Pass<'_>, first: usize) -> (Vec<Run>, Vec<usize>) {
        let line = self.images * self.pitch;
        let rows = self.positions / line;
        let columns = pass.columns.taps.len();
        let mut runs: Vec<Run> = Vec::new();
        let mut lines = Vec::with_capacity(rows);
        let mut start = 0;
        for row in 0..rows {
            let seen = |tap: &Tap| axis.place(tap.phase, first + row + tap.shift).is_some();
            let taps = if line < LINE {
                0..pass.rows.taps.len()
            } else {
                let before = pass.rows.taps.iter().take_while(|tap| !seen(tap)).count();
                let after = pass.rows.taps.iter().rev().take_while(|tap| !seen(tap));
                before..(pass.rows.taps.len() - after.count()).max(before)
            };
            let taps = taps.start * columns..taps.end * columns;
            match runs.last_mut() {
                Some(run) if run.taps == taps => run.sums += line,
                _ => runs.push(Run {
                    position: row * line,
                    sum: 0,
                    sums: line,
                    taps,
                }),
            }
        }
        for run in &mut runs {
            run.sum = start;
            lines.extend((start..start + run.sums).step_by(line));
            run.sums = run.sums.next_multiple_of(LANES);
            start += run.sums;
        }
        (runs, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, Cut, Layout, Plan, Run};

    fn plan(size: usize) -> Plan {
        let axis = Axis::forward(size, 3, 1, 1);
        Plan {
            rows: axis.clone(),
            columns: axis,
            kernel_columns: 3,
        }
    }

    #[test]
    fn small_images_go_together_and_large_ones_in_bands() {
        let cut = |size, batch, positions| plan(size).cut(batch, positions);
        assert_eq!(
            cut(4, 32, 0),
            Cut {
                images: 16,
                rows: 4
            }
        );
        assert_eq!(cut(8, 16, 0), Cut { images: 8, rows: 8 });
        assert_eq!(
            cut(16, 16, 0),
            Cut {
                images: 1,
                rows: 16
            }
        );
        assert_eq!(
            cut(64, 16, 5000),
            Cut {
                images: 1,
                rows: 16
            }
        );
        assert_eq!(cut(64, 2, 0), Cut { images: 1, rows: 4 });
        assert_eq!(cut(1, 0, 0), Cut { images: 1, rows: 1 });
    }

    #[test]
    fn lines_at_the_edge_leave_out_the_taps_in_the_padding() {
        let plan = plan(4);
        let pass = plan.passes().next().unwrap();
        let layout = Layout::new(&plan, 13, 4);
        let (runs, lines) = layout.runs(&plan.rows, pass, 0);
        let run = |position, sum, sums, taps| Run {
            position,
            sum,
            sums,
            taps,
        };
        assert_eq!(
            runs,
            [
                run(0, 0, 80, 3..9),
                run(65, 80, 144, 0..9),
                run(195, 224, 80, 0..6)
            ]
        );
        assert_eq!(lines, [0, 80, 145, 224]);

        let layout = Layout::new(&plan, 2, 4);
        let (runs, lines) = layout.runs(&plan.rows, pass, 0);
        assert_eq!(runs, [run(0, 0, 48, 0..9)]);
        assert_eq!(lines, [0, 10, 20, 30]);
    }
}
