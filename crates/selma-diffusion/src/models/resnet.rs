//! Residual blocks and changes of resolution.

use burn::module::Module;
use burn::tensor::module::interpolate;
use burn::tensor::ops::PadMode;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraConv2d, LoraConv2dConfig, LoraLinear, LoraLinearConfig};

use crate::nn::GroupNorm;

/// Configuration of a [`ResnetBlock2D`].
#[derive(Debug, Clone, Copy)]
pub struct ResnetBlock2DConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the time embedding; none in the VAE.
    pub temb_channels: Option<usize>,
    /// Groups of both normalisations.
    pub groups: usize,
    /// Added to the variances.
    pub eps: f64,
}

impl ResnetBlock2DConfig {
    /// The block.
    #[must_use]
    pub fn init(&self, device: &Device) -> ResnetBlock2D {
        let (input, output) = (self.in_channels, self.out_channels);
        ResnetBlock2D {
            norm1: GroupNorm::init(self.groups, input, self.eps, device),
            conv1: LoraConv2dConfig::new(input, output, 3).init(device),
            time_emb_proj: self
                .temb_channels
                .map(|width| LoraLinearConfig::new(width, output).init(device)),
            norm2: GroupNorm::init(self.groups, output, self.eps, device),
            conv2: LoraConv2dConfig::new(output, output, 3).init(device),
            conv_shortcut: (input != output)
                .then(|| LoraConv2dConfig::new(input, output, 1).init(device)),
        }
    }
}

/// Two convolutions around a residual connection, with the time embedding added in between.
#[derive(Module, Debug)]
pub struct ResnetBlock2D {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// 3x3.
    pub conv1: LoraConv2d,
    /// From the time embedding to the channels of the output.
    pub time_emb_proj: Option<LoraLinear>,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// 3x3.
    pub conv2: LoraConv2d,
    /// 1x1, where the number of channels changes.
    pub conv_shortcut: Option<LoraConv2d>,
}

lora_layers!(ResnetBlock2D {
    conv1,
    time_emb_proj,
    conv2,
    conv_shortcut
});

impl ResnetBlock2D {
    /// # Shapes
    ///
    /// - input: `[batch, in_channels, height, width]`
    /// - temb: `[batch, temb_channels]`, already through the activation
    /// - output: `[batch, out_channels, height, width]`
    #[must_use]
    pub fn forward(&self, input: Tensor<4>, temb: Option<&Tensor<2>>) -> Tensor<4> {
        let hidden = self.norm1.forward_silu(input.clone());
        let mut hidden = self.conv1.forward(hidden);
        if let (Some(project), Some(temb)) = (&self.time_emb_proj, temb) {
            let shift = project.forward(temb.clone());
            let [batch, channels] = shift.dims();
            hidden = hidden + shift.reshape([batch, channels, 1, 1]);
        }
        let hidden = self.norm2.forward_silu(hidden);
        let hidden = self.conv2.forward(hidden);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(input),
            None => input,
        };
        shortcut + hidden
    }
}

/// Halves the resolution by a convolution of stride 2.
#[derive(Module, Debug)]
pub struct Downsample2D {
    /// 3x3, stride 2.
    pub conv: LoraConv2d,
    /// Whether zeros are appended at the bottom and the right only, as the VAE does.
    pub asymmetric: bool,
}

lora_layers!(Downsample2D { conv });

impl Downsample2D {
    /// The UNet's form pads all four sides.
    #[must_use]
    pub fn unet(channels: usize, device: &Device) -> Self {
        Self {
            conv: LoraConv2dConfig::new(channels, channels, 3)
                .with_stride(2)
                .init(device),
            asymmetric: false,
        }
    }

    /// The VAE's form pads the bottom and the right.
    #[must_use]
    pub fn vae(channels: usize, device: &Device) -> Self {
        Self {
            conv: LoraConv2dConfig::new(channels, channels, 3)
                .with_stride(2)
                .with_padding(0)
                .init(device),
            asymmetric: true,
        }
    }

    /// # Shapes
    ///
    /// - input: `[batch, channels, height, width]`
    /// - output: `[batch, channels, ceil(height / 2), ceil(width / 2)]` (rounded down in the VAE)
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let input = if self.asymmetric {
            input.pad((0, 1, 0, 1), PadMode::Constant(0.0))
        } else {
            input
        };
        self.conv.forward(input)
    }
}

/// Enlarges by nearest neighbours, then convolves.
#[derive(Module, Debug)]
pub struct Upsample2D {
    /// 3x3.
    pub conv: LoraConv2d,
}

lora_layers!(Upsample2D { conv });

impl Upsample2D {
    /// The number of channels stays.
    #[must_use]
    pub fn init(channels: usize, device: &Device) -> Self {
        Self {
            conv: LoraConv2dConfig::new(channels, channels, 3).init(device),
        }
    }

    /// Enlarges to `size`, or by 2 where none is given.
    ///
    /// A size is given where the skip connection's is odd, which doubling would miss.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, channels, height, width]`
    /// - output: `[batch, channels, size[0], size[1]]`
    #[must_use]
    pub fn forward(&self, input: Tensor<4>, size: Option<[usize; 2]>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let enlarged = match size {
            Some(size) if size != [2 * height, 2 * width] => interpolate(
                input,
                InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size),
            ),
            // Repeating by broadcasting is exact and differentiates to a plain sum.
            _ => input
                .reshape([batch, channels, height, 1, width, 1])
                .expand([batch, channels, height, 2, width, 2])
                .reshape([batch, channels, 2 * height, 2 * width]),
        };
        self.conv.forward(enlarged)
    }
}
