//! 2-D convolution and its gradients without a matrix of patches.

mod autodiff;
mod axis;
mod correlate;
mod direct;
mod layout;
mod pack;
mod tile;
mod weight;

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::ConvOptions;

pub(crate) use self::autodiff::tracked;
use self::axis::Axis;
use self::direct::Convolution;
use self::layout::Plan;
use self::pack::{Images, Weights};
use super::math::Itself;
use super::simd::{Kernel, Writer, chunk_of, fill};
use super::storage::{Storage, contiguous, shaped};
use super::sums::sum;

/// What the convolution is told besides its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// `[batch, channels, height, width]`.
    pub(crate) input: [usize; 4],
    /// `[outputs, inputs, height, width]`.
    pub(crate) weight: [usize; 4],
}

impl Sizes {
    /// Height and width of the output, where the kernel fits.
    fn output(&self, options: Options) -> [usize; 2] {
        let [_, _, height, width] = self.input;
        let [_, _, kernel_height, kernel_width] = self.weight;
        [(height, kernel_height), (width, kernel_width)].map(|(length, kernel)| {
            axis::output_length(length, kernel, options.stride, options.padding)
        })
    }

    /// Whether each position of the output sees the same position of the input alone.
    fn pointwise(&self, options: Options) -> bool {
        let [_, _, height, width] = self.weight;
        [height, width, options.stride, options.padding] == [1, 1, 1, 0]
    }

    /// Whether the kernels take a convolution of these sizes, whose kernel fits: nothing is empty, and the padding is
    /// less than the kernel.
    pub(crate) fn taken(&self, options: Options) -> bool {
        let [_, _, height, width] = self.weight;
        let sizes = self.input.iter().chain(&self.weight);
        sizes.copied().all(|size| size > 0) && options.padding < height.min(width)
    }
}

/// The convolution of `x: [batch, inputs, height, width]` with `weight: [outputs, inputs, kernel height, kernel width]`.
pub(crate) fn forward(
    x: Storage,
    weight: Storage,
    bias: Option<Storage>,
    options: Options,
) -> Storage {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let sizes = Sizes {
        input: x.shape().dims(),
        weight: weight.shape().dims(),
    };
    if sizes.pointwise(options) {
        return product(x, weight, bias);
    }
    let [batch, inputs, height, width] = sizes.input;
    let [outputs, _, kernel_height, kernel_width] = sizes.weight;
    let plan = plan(sizes, options, Axis::forward);
    let convolution = Convolution {
        plan: &plan,
        source: Images {
            numbers: x.storage::<f32>(),
            channels: inputs,
            plane: height * width,
        },
        weights: Weights {
            numbers: weight.storage::<f32>(),
            outputs,
            inputs,
            area: kernel_height * kernel_width,
            turned: false,
        },
        bias: bias.as_ref().map(|bias| bias.storage::<f32>()),
    };
    let [height, width] = sizes.output(options);
    shaped(convolution.run(), [batch, outputs, height, width])
}

/// A pointwise convolution: the product of two matrices, which burn multiplies as they are.
fn product(x: Storage, weight: Storage, bias: Option<Storage>) -> Storage {
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    Flex::conv2d(x, weight, bias, options)
}

/// The gradient with respect to the input of `sizes`, for the gradient `dy` with respect to the output.
pub(crate) fn backward_input(
    weight: Storage,
    dy: Storage,
    sizes: Sizes,
    options: Options,
) -> Storage {
    let (weight, dy) = (contiguous(weight), contiguous(dy));
    if sizes.pointwise(options) {
        return product(dy, Flex::float_swap_dims(weight, 0, 1), None);
    }
    let [_, inputs, _, _] = sizes.input;
    let [outputs, _, kernel_height, kernel_width] = sizes.weight;
    let plan = plan(sizes, options, Axis::backward);
    let convolution = Convolution {
        plan: &plan,
        source: Images {
            numbers: dy.storage::<f32>(),
            channels: outputs,
            plane: plan.rows.source * plan.columns.source,
        },
        weights: Weights {
            numbers: weight.storage::<f32>(),
            outputs: inputs,
            inputs: outputs,
            area: kernel_height * kernel_width,
            turned: true,
        },
        bias: None,
    };
    shaped(convolution.run(), sizes.input)
}

/// The gradient with respect to the weight of `sizes`, for the gradient `dy` with respect to the output.
pub(crate) fn backward_weight(x: Storage, dy: Storage, sizes: Sizes, options: Options) -> Storage {
    let (x, dy) = (contiguous(x), contiguous(dy));
    let [batch, inputs, height, width] = sizes.input;
    let [outputs, _, _, _] = sizes.weight;
    let mut planned = sizes;
    // One long row costs less to pack than many short ones.
    if sizes.pointwise(options) && height * width <= 1024 {
        planned.input = [batch, inputs, 1, height * width];
    }
    let plan = plan(planned, options, Axis::forward);
    let x = Images {
        numbers: x.storage::<f32>(),
        channels: inputs,
        plane: height * width,
    };
    let dy = Images {
        numbers: dy.storage::<f32>(),
        channels: outputs,
        plane: plan.rows.destination * plan.columns.destination,
    };
    shaped(weight::gradient(&plan, x, dy), sizes.weight)
}

/// The gradient with respect to the bias, for the gradient `dy` with respect to the output.
pub(crate) fn backward_bias(dy: Storage) -> Storage {
    let dy = contiguous(dy);
    let [batch, channels, height, width] = dy.shape().dims();
    let kernel = PlaneSums {
        x: dy.storage::<f32>(),
        channels,
        plane: height * width,
    };
    let sums = fill(batch * channels, channels, &kernel);
    let mut totals = vec![0.0_f64; channels];
    for sums in sums.chunks(channels.max(1)) {
        for (total, &sum) in totals.iter_mut().zip(sums) {
            *total += f64::from(sum);
        }
    }
    shaped(
        totals.into_iter().map(|total| total as f32).collect(),
        [channels],
    )
}

/// The axes of a convolution, each made by `axis`.
fn plan(sizes: Sizes, options: Options, axis: impl Fn(usize, usize, usize, usize) -> Axis) -> Plan {
    let [_, _, height, width] = sizes.input;
    let [_, _, kernel_height, kernel_width] = sizes.weight;
    let Options { stride, padding } = options;
    Plan {
        rows: axis(height, kernel_height, stride, padding),
        columns: axis(width, kernel_width, stride, padding),
        kernel_columns: kernel_width,
    }
}

/// Writes the sum of each channel of a sample.
struct PlaneSums<'a> {
    x: &'a [f32],
    channels: usize,
    plane: usize,
}

impl Kernel for PlaneSums<'_> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        for x in chunk_of(self.x, index, self.channels * self.plane).chunks(self.plane) {
            out.map(&[sum(x, Itself) as f32], Itself);
        }
    }
}
