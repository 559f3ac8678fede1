//! Runs kernels: with the widest vectors of this CPU, over threads, into vectors that need no zeroing first.

use core::mem::{MaybeUninit, take};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math::{Map1, Map2, Map3};

/// From this many numbers on the work goes to the thread pool; below, waking the threads costs more than it saves.
const PARALLEL: usize = 1 << 15;

/// Numbers in one task of an elementwise kernel: 64 KiB of `f32`, which the second-level cache holds twice.
pub(crate) const CHUNK: usize = 1 << 14;

/// Computes one chunk of an output.
///
/// `run` must be `#[inline(always)]`, and what it calls too: only code inlined into the entry point of an instruction
/// set is compiled for it.
pub(crate) trait Kernel: Sync {
    /// Writes the chunk number `index`, all of it.
    fn run(&self, index: usize, out: &mut Writer<'_>);
}

/// A chunk of memory to be written from front to back.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    rest: &'a mut [MaybeUninit<f32>],
}

impl Writer<'_> {
    /// Writes `f` of each number of `x`.
    #[inline(always)]
    pub(crate) fn map<F: Map1>(&mut self, x: &[f32], f: F) {
        let (now, later) = take(&mut self.rest).split_at_mut(x.len());
        for (out, &x) in now.iter_mut().zip(x) {
            out.write(f.apply(x));
        }
        self.rest = later;
    }

    /// Writes `f` of each pair of numbers of `a` and `b`, which have one length.
    #[inline(always)]
    pub(crate) fn zip<F: Map2>(&mut self, a: &[f32], b: &[f32], f: F) {
        assert_eq!(a.len(), b.len(), "kernel inputs differ in length");
        let (now, later) = take(&mut self.rest).split_at_mut(a.len());
        for ((out, &a), &b) in now.iter_mut().zip(a).zip(b) {
            out.write(f.apply(a, b));
        }
        self.rest = later;
    }

    /// Writes `f` of each triple of numbers of `a`, `b` and `c`, which have one length.
    #[inline(always)]
    pub(crate) fn zip3<F: Map3>(&mut self, a: &[f32], b: &[f32], c: &[f32], f: F) {
        assert_eq!(a.len(), b.len(), "kernel inputs differ in length");
        assert_eq!(a.len(), c.len(), "kernel inputs differ in length");
        let (now, later) = take(&mut self.rest).split_at_mut(a.len());
        for (((out, &a), &b), &c) in now.iter_mut().zip(a).zip(b).zip(c) {
            out.write(f.apply(a, b, c));
        }
        self.rest = later;
    }
}

/// A vector of `len` numbers, written by `kernel` in chunks of `chunk` (the last may be shorter).
#[allow(
    unsafe_code,
    reason = "zeroing the vector first costs as much as a cheap kernel"
)]
pub(crate) fn fill<K: Kernel>(len: usize, chunk: usize, kernel: &K) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(len);
    let (memory, _) = out.spare_capacity_mut().split_at_mut(len);
    let arch = Arch::new();
    let task = |(index, memory): (usize, &mut [MaybeUninit<f32>])| {
        let mut writer = Writer { rest: memory };
        arch.dispatch(Run {
            kernel,
            index,
            writer: &mut writer,
        });
        assert!(writer.rest.is_empty(), "kernel left part of its output");
    };
    if len < PARALLEL {
        memory.chunks_mut(chunk.max(1)).enumerate().for_each(task);
    } else {
        memory
            .par_chunks_mut(chunk.max(1))
            .enumerate()
            .with_min_len(CHUNK.div_ceil(chunk.max(1)))
            .for_each(task);
    }
    // SAFETY: `len` is within the capacity, and every number below it is initialised. The chunks cover the first `len`
    // places; a `Writer` drops a place from `rest` only after writing it, and each task has checked that its `rest` is
    // empty. Had a task panicked, this line would not be reached.
    unsafe { out.set_len(len) };
    out
}

/// Replaces each number of `x` by `f` of it.
pub(crate) fn map_in_place<F: Map1>(x: &mut [f32], f: F) {
    let arch = Arch::new();
    let task = |x: &mut [f32]| arch.dispatch(MapInPlace { x, f });
    if x.len() < PARALLEL {
        task(x);
    } else {
        x.par_chunks_mut(CHUNK).for_each(task);
    }
}

/// Replaces each number of `b` by `f` of it and its counterpart in `a`, which has the same length.
pub(crate) fn zip_in_place<F: Map2>(a: &[f32], b: &mut [f32], f: F) {
    assert_eq!(a.len(), b.len(), "kernel inputs differ in length");
    let arch = Arch::new();
    let task = |(a, b): (&[f32], &mut [f32])| arch.dispatch(ZipInPlace { a, b, f });
    if a.len() < PARALLEL {
        task((a, b));
    } else {
        a.par_chunks(CHUNK)
            .zip(b.par_chunks_mut(CHUNK))
            .for_each(task);
    }
}

/// The chunk number `index` of `x`, empty beyond its end.
#[inline(always)]
pub(crate) fn chunk_of(x: &[f32], index: usize, chunk: usize) -> &[f32] {
    let start = index.saturating_mul(chunk).min(x.len());
    let end = start.saturating_add(chunk).min(x.len());
    x.get(start..end).unwrap_or_default()
}

struct Run<'a, 'w, K> {
    kernel: &'a K,
    index: usize,
    writer: &'a mut Writer<'w>,
}

impl<K: Kernel> WithSimd for Run<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.kernel.run(self.index, self.writer);
    }
}

struct MapInPlace<'a, F> {
    x: &'a mut [f32],
    f: F,
}

impl<F: Map1> WithSimd for MapInPlace<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for x in self.x {
            *x = self.f.apply(*x);
        }
    }
}

struct ZipInPlace<'a, F> {
    a: &'a [f32],
    b: &'a mut [f32],
    f: F,
}

impl<F: Map2> WithSimd for ZipInPlace<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for (&a, b) in self.a.iter().zip(self.b) {
            *b = self.f.apply(a, *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Kernel, Map1, PARALLEL, Writer, chunk_of, fill, map_in_place};

    #[derive(Clone, Copy)]
    struct AddOne;

    impl Map1 for AddOne {
        fn apply(self, x: f32) -> f32 {
            x + 1.0
        }
    }

    struct Copying<'a> {
        x: &'a [f32],
        chunk: usize,
        keep: usize,
    }

    impl Kernel for Copying<'_> {
        fn run(&self, index: usize, out: &mut Writer<'_>) {
            let x = chunk_of(self.x, index, self.chunk);
            out.map(&x[..x.len() - self.keep], AddOne);
        }
    }

    #[test]
    fn every_length_is_filled() {
        for len in [
            0,
            1,
            7,
            64,
            CHUNK - 1,
            CHUNK + 1,
            PARALLEL,
            3 * PARALLEL + 5,
        ] {
            for chunk in [0, 1, 192, CHUNK] {
                if chunk == 0 && len > 0 {
                    continue;
                }
                let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let y = fill(
                    len,
                    chunk,
                    &Copying {
                        x: &x,
                        chunk,
                        keep: 0,
                    },
                );
                let mut z = x.clone();
                map_in_place(&mut z, AddOne);
                assert_eq!(y, z);
                assert!(y.iter().zip(&x).all(|(y, x)| *y == x + 1.0));
            }
        }
    }

    #[test]
    #[should_panic(expected = "kernel left part of its output")]
    fn an_incomplete_chunk_is_never_returned() {
        let x = vec![0.0; 100];
        fill(
            100,
            50,
            &Copying {
                x: &x,
                chunk: 50,
                keep: 1,
            },
        );
    }
}
