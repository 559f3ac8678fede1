//! An activation of every number of a tensor.

use core::marker::PhantomData;

use super::math::{Activation, Map1, Map2};
use super::simd::{CHUNK, Kernel, Writer, chunk_of, fill, map_in_place, zip_in_place};
use super::storage::{Storage, contiguous, tensor};

/// The activation of each number of `x`, in place where nothing else holds `x`.
pub(crate) fn forward<A: Activation>(x: Storage) -> Storage {
    let mut x = contiguous(x);
    if let Some(values) = x.try_storage_mut::<f32>() {
        map_in_place(values, Forward::<A>(PhantomData));
        return x;
    }
    let values = x.storage::<f32>();
    let kernel = ForwardKernel::<A> {
        x: values,
        activation: PhantomData,
    };
    tensor(fill(values.len(), CHUNK, &kernel), &x)
}

/// The gradient with respect to the input `x`, for the gradient `dy` with respect to the output.
pub(crate) fn backward<A: Activation>(x: Storage, dy: Storage) -> Storage {
    let x = contiguous(x);
    let mut dy = contiguous(dy);
    let input = x.storage::<f32>();
    if let Some(gradient) = dy.try_storage_mut::<f32>() {
        zip_in_place(input, gradient, Backward::<A>(PhantomData));
        return dy;
    }
    let kernel = BackwardKernel::<A> {
        x: input,
        dy: dy.storage::<f32>(),
        activation: PhantomData,
    };
    tensor(fill(input.len(), CHUNK, &kernel), &x)
}

/// The activation as a function.
#[derive(Clone, Copy, Debug)]
struct Forward<A>(PhantomData<A>);

impl<A: Activation> Map1 for Forward<A> {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        A::forward(x)
    }
}

/// The gradient of the output times the derivative.
#[derive(Clone, Copy, Debug)]
struct Backward<A>(PhantomData<A>);

impl<A: Activation> Map2 for Backward<A> {
    #[inline(always)]
    fn apply(self, x: f32, dy: f32) -> f32 {
        dy * A::derivative(x)
    }
}

struct ForwardKernel<'a, A> {
    x: &'a [f32],
    activation: PhantomData<A>,
}

impl<A: Activation> Kernel for ForwardKernel<'_, A> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        out.map(chunk_of(self.x, index, CHUNK), Forward(self.activation));
    }
}

struct BackwardKernel<'a, A> {
    x: &'a [f32],
    dy: &'a [f32],
    activation: PhantomData<A>,
}

impl<A: Activation> Kernel for BackwardKernel<'_, A> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let x = chunk_of(self.x, index, CHUNK);
        let dy = chunk_of(self.dy, index, CHUNK);
        out.zip(x, dy, Backward(self.activation));
    }
}
