//! GEGLU: one half of each row times the GELU of the other.

use burn::backend::TensorMetadata;

use super::math::{Activation, Gelu, Map2, Map3};
use super::simd::{Kernel, Writer, chunk_of, fill};
use super::storage::{Storage, contiguous, shaped, tensor};

/// `value * gelu(gate)` of `x: [batch, length, 2 * inner]`, as `[batch, length, inner]`.
pub(crate) fn forward(x: Storage) -> Storage {
    let x = contiguous(x);
    let [batch, length, width] = x.shape().dims();
    let inner = width / 2;
    let kernel = ForwardKernel {
        x: x.storage::<f32>(),
        inner,
    };
    let y = fill(batch * length * inner, inner, &kernel);
    shaped(y, [batch, length, inner])
}

/// The gradient with respect to `x`, for the gradient `dy` with respect to the output.
pub(crate) fn backward(x: Storage, dy: Storage) -> Storage {
    let x = contiguous(x);
    let dy = contiguous(dy);
    let [_, _, width] = x.shape().dims();
    let input = x.storage::<f32>();
    let kernel = BackwardKernel {
        x: input,
        dy: dy.storage::<f32>(),
        inner: width / 2,
    };
    tensor(fill(input.len(), width, &kernel), &x)
}

/// `value * gelu(gate)`; with the gradient of the output in the place of `value`, the gradient of `value`.
#[derive(Clone, Copy, Debug)]
struct Gated;

impl Map2 for Gated {
    #[inline(always)]
    fn apply(self, value: f32, gate: f32) -> f32 {
        value * Gelu::forward(gate)
    }
}

/// The gradient of `gate`.
#[derive(Clone, Copy, Debug)]
struct GateGradient;

impl Map3 for GateGradient {
    #[inline(always)]
    fn apply(self, dy: f32, value: f32, gate: f32) -> f32 {
        dy * value * Gelu::derivative(gate)
    }
}

struct ForwardKernel<'a> {
    x: &'a [f32],
    inner: usize,
}

impl Kernel for ForwardKernel<'_> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let (value, gate) = halves(self.x, index, self.inner);
        out.zip(value, gate, Gated);
    }
}

struct BackwardKernel<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    inner: usize,
}

impl Kernel for BackwardKernel<'_> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let (value, gate) = halves(self.x, index, self.inner);
        let dy = chunk_of(self.dy, index, self.inner);
        out.zip(dy, gate, Gated);
        out.zip3(dy, value, gate, GateGradient);
    }
}

/// The two halves of the row number `index`.
#[inline(always)]
fn halves(x: &[f32], index: usize, inner: usize) -> (&[f32], &[f32]) {
    let row = chunk_of(x, index, 2 * inner);
    row.split_at_checked(inner).unwrap_or_default()
}
