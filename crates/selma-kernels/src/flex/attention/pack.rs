//! The operands in the order in which the products read them.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use core::ops::{Deref, DerefMut, Range};

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::product::GROUP;
use crate::flex::storage::{Storage, contiguous};

/// Numbers that a packed row is a multiple of: the widest vector.
pub(super) const LANES: usize = 16;

/// Numbers that a thread packs at least.
const MANY: usize = 1 << 15;

/// Zeros that begin where a vector of the widest kind does: one that lies across two lines of the cache costs two accesses.
#[derive(Debug)]
pub(super) struct Aligned {
    numbers: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Self {
        const LINE: usize = LANES * size_of::<f32>();
        let numbers = vec![0.0; len + LANES];
        let before = numbers.as_ptr().addr() % LINE;
        Self {
            start: (LINE - before) % LINE / size_of::<f32>(),
            numbers,
            len,
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..self.start + self.len]
    }
}

/// A tensor whose rows can be read as they lie: `[batch, heads, length, width]` in any order but the last, as projections
/// leave it.
pub(super) fn readable(x: Storage) -> Storage {
    let strides = x.layout().strides();
    let rows = strides.last() == Some(&1) && strides.iter().all(|&stride| stride >= 0);
    if rows { x } else { contiguous(x) }
}

/// The rows of all heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads<'a> {
    numbers: &'a [f32],
    start: usize,
    strides: [usize; 3],
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) width: usize,
}

impl<'a> Heads<'a> {
    /// Of a tensor that is [`readable`].
    pub(super) fn new(x: &'a Storage) -> Self {
        let [_, heads, length, width] = x.shape().dims();
        let layout = x.layout();
        let mut strides = [0; 3];
        for (stride, found) in strides.iter_mut().zip(layout.strides()) {
            *stride = found.unsigned_abs();
        }
        Self {
            numbers: x.storage::<f32>(),
            start: layout.start_offset(),
            strides,
            heads,
            length,
            width,
        }
    }

    /// The head number `head`, counted over all batches.
    #[inline(always)]
    pub(super) fn head(self, head: usize) -> Head<'a> {
        let [batch, inner, stride] = self.strides;
        let start = self.start + head / self.heads * batch + head % self.heads * inner;
        Head {
            numbers: &self.numbers[start..],
            stride,
            length: self.length,
            width: self.width,
        }
    }
}

/// The rows of one head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    numbers: &'a [f32],
    stride: usize,
    length: usize,
    width: usize,
}

impl<'a> Head<'a> {
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        let start = row * self.stride;
        &self.numbers[start..start + self.width]
    }

    /// Groups of [`GROUP`] rows, `[group][width][GROUP]`; the last is filled with zeros.
    #[inline(always)]
    fn groups(&self, packed: &mut [f32]) {
        for (group, packed) in packed.chunks_exact_mut(GROUP * self.width).enumerate() {
            let (places, _) = packed.as_chunks_mut::<GROUP>();
            for r in 0..GROUP {
                let row = group * GROUP + r;
                if row < self.length {
                    for (place, &x) in places.iter_mut().zip(self.row(row)) {
                        place[r] = x;
                    }
                }
            }
        }
    }

    /// `[rows][padded]`, each row filled with zeros.
    #[inline(always)]
    pub(super) fn rows(&self, rows: Range<usize>, scale: f32, padded: usize, packed: &mut [f32]) {
        for (row, packed) in rows.zip(packed.chunks_exact_mut(padded)) {
            for (place, &x) in packed.iter_mut().zip(self.row(row)) {
                *place = x * scale;
            }
        }
    }

    /// `[width][strip]`, where column `c` is the row `rows.start + c`; columns that have none are zeros.
    #[inline(always)]
    pub(super) fn columns(&self, rows: Range<usize>, scale: f32, strip: usize, packed: &mut [f32]) {
        packed.fill(0.0);
        for (c, row) in rows.enumerate() {
            for (packed, &x) in packed.chunks_exact_mut(strip).zip(self.row(row)) {
                packed[c] = x * scale;
            }
        }
    }
}

/// All heads in groups of [`GROUP`] rows, `[head][group][width][GROUP]`.
pub(super) fn grouped(heads: Heads<'_>, count: usize) -> Vec<f32> {
    let size = heads.length.next_multiple_of(GROUP) * heads.width;
    each_head(count, size, |head, packed| heads.head(head).groups(packed))
}

/// All heads row by row, `[head][row][padded]`.
pub(super) fn padded(heads: Heads<'_>, count: usize, padded: usize) -> Vec<f32> {
    each_head(count, heads.length * padded, |head, packed| {
        heads.head(head).rows(0..heads.length, 1.0, padded, packed);
    })
}

fn each_head(count: usize, size: usize, pack: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut packed = vec![0.0; count * size];
    packed
        .par_chunks_mut(size.max(1))
        .enumerate()
        .with_min_len(MANY.div_ceil(size.max(1)))
        .for_each(|(head, packed)| pack(head, packed));
    packed
}
