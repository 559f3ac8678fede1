//! How the source of a convolution is cut into tasks and packed.
//!
//! A task takes some images and a band of their rows. Its packed source holds, of each channel and phase, all rows one
//! after another, and of each row the images side by side; outputs have *positions* in the same order. Then a tap of
//! the kernel is one offset for all positions, whatever the size of the image: a few positions at the end of each row
//! are computed in vain, and small images fill long vectors together.

use super::axis::{Axis, Outputs};

/// Lanes of the widest vectors: what is packed has this many numbers to spare.
pub(super) const LANES: usize = 16;

/// Positions of a task, about: enough that what is done once for a task does not count.
const MANY: usize = 1024;

/// Positions that a task has at least, if there are as many: fewer do not pay for streaming the weights through.
const ENOUGH: usize = 256;

/// Numbers of the packed source that stay in the second-level cache (half a megabyte).
const CACHED: usize = 1 << 17;

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

    /// How a source of `batch` images with so many `channels` is cut.
    pub(super) fn cut(&self, batch: usize, channels: usize) -> Cut {
        let pitch = self.columns.pitch().max(1);
        let rows = self.rows.count().max(1);
        let image = rows * pitch;
        if image < ENOUGH {
            return Cut {
                images: even(batch.max(1), ENOUGH.div_ceil(image)),
                rows,
            };
        }
        let row = (channels * self.phases() * pitch).max(1);
        let cached = (CACHED / row).saturating_sub(self.rows.reach());
        let band = (MANY / pitch).min(cached).max(ENOUGH.div_ceil(pitch));
        Cut {
            images: 1,
            rows: even(rows, band),
        }
    }
}

/// Parts of even size of a whole, each about `part`.
fn even(whole: usize, part: usize) -> usize {
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
}

#[cfg(test)]
mod tests {
    use super::{Axis, Cut, Plan};

    fn cut(size: usize, batch: usize, channels: usize) -> Cut {
        let axis = Axis::forward(size, 3, 1, 1).unwrap();
        Plan {
            rows: axis.clone(),
            columns: axis,
            kernel_columns: 3,
        }
        .cut(batch, channels)
    }

    #[test]
    fn small_images_go_together_and_large_ones_in_bands() {
        assert_eq!(cut(4, 16, 160), Cut { images: 8, rows: 4 });
        assert_eq!(cut(8, 16, 80), Cut { images: 4, rows: 8 });
        assert_eq!(
            cut(16, 16, 64),
            Cut {
                images: 1,
                rows: 16
            }
        );
        assert_eq!(
            cut(64, 16, 16),
            Cut {
                images: 1,
                rows: 13
            }
        );
        assert_eq!(cut(64, 2, 320), Cut { images: 1, rows: 4 });
        assert_eq!(cut(1, 0, 1), Cut { images: 1, rows: 1 });
    }
}
