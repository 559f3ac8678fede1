//! A 2-D convolution with low-rank branches.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use selma_kernels::conv2d;

use super::contraction::{Contraction, contract};
use super::{InputObserver, LoraBranch, Unfused};

/// Configuration of a [`LoraConv2d`] with a square kernel.
#[derive(Debug, Clone, Copy)]
pub struct LoraConv2dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel_size: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on all four sides.
    pub padding: usize,
}

impl LoraConv2dConfig {
    /// A convolution with stride 1 that keeps the spatial size (odd kernels).
    #[must_use]
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel_size,
            stride: 1,
            padding: kernel_size / 2,
        }
    }

    /// Sets the stride.
    #[must_use]
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets the padding.
    #[must_use]
    pub fn with_padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// The layer, with torch's default initialisation, drawn only if no weights are loaded.
    #[must_use]
    pub fn init(&self, device: &Device) -> LoraConv2d {
        let fan_in = self.in_channels * self.kernel_size * self.kernel_size;
        let bound = 1.0 / (fan_in as f64).sqrt();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        let kernel = [
            self.out_channels,
            self.in_channels,
            self.kernel_size,
            self.kernel_size,
        ];
        LoraConv2d {
            weight: uniform.init(kernel, device),
            bias: Some(uniform.init([self.out_channels], device)),
            branches: Vec::new(),
            unfused: None,
            observer: None,
            stride: self.stride,
            padding: self.padding,
        }
    }
}

/// A 2-D convolution with any number of low-rank branches.
///
/// A branch is a convolution `A` of the base's kernel size, stride and padding to `rank` channels, followed by the 1x1
/// convolution `B` (the LoCon form, as kohya and PEFT write it).
#[derive(Module, Debug)]
pub struct LoraConv2d {
    /// `[out, in, kh, kw]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Low-rank branches, in the order in which they were attached.
    pub branches: Vec<LoraBranch<4>>,
    /// The weight without the branches that are fused into it.
    pub unfused: Option<Unfused<4>>,
    /// Sees the inputs, where a [`Calibrator`](super::Calibrator) watches the layer.
    #[module(skip)]
    pub observer: Option<InputObserver<4>>,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on all four sides.
    pub padding: usize,
}

impl LoraConv2d {
    /// Applies the base and all active branches, in the number type of the input, to which weights of another type are converted for this call.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, in, height, width]`
    /// - output: `[batch, out, height', width']`
    ///
    /// # Panics
    ///
    /// If the channels of the input are not `in`.
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        if let Some(observer) = &self.observer {
            let a = observer.a.clone().cast(input.dtype());
            let z = conv2d(input.clone(), a, None, self.stride, self.padding);
            let [batch, ranks, height, width] = z.dims();
            let z = z.permute([0, 2, 3, 1]);
            observer.add(&z.reshape([batch * height * width, ranks]));
        }
        let dtype = input.dtype();
        let weight = self.weight.val().cast(dtype);
        let (rows, input_tracked) = (self.positions(input.dims()), input.is_tracked());
        let [outputs, channels, height, width] = weight.dims();
        let (weight, beside) = contract(weight, &self.branches, |branch| Contraction {
            rows,
            inputs: channels * height * width,
            outputs,
            rank: branch.rank(),
            factors_tracked: branch.is_tracked(),
            input_tracked,
        });
        let update = beside
            .into_iter()
            .map(|branch| {
                let factor = |tensor: &Tensor<4>| tensor.clone().cast(dtype);
                let down = conv2d(
                    input.clone(),
                    factor(&branch.a),
                    None,
                    self.stride,
                    self.padding,
                );
                let up = conv2d(down, factor(&branch.b), None, 1, 0);
                up.mul_scalar(branch.strength())
            })
            .reduce(|sum, update| sum + update);
        let bias = self.bias.as_ref().map(|bias| bias.val().cast(dtype));
        let output = conv2d(input, weight, bias, self.stride, self.padding);
        match update {
            Some(update) => output + update,
            None => output,
        }
    }

    /// Positions of the output for an input of these dimensions, over the batch.
    fn positions(&self, [batch, _, height, width]: [usize; 4]) -> usize {
        let [_, _, kernel_height, kernel_width] = self.weight.dims();
        let along = |size: usize, kernel: usize| {
            let room = (size + 2 * self.padding).saturating_sub(kernel);
            room / self.stride.max(1) + 1
        };
        batch * along(height, kernel_height) * along(width, kernel_width)
    }
}
