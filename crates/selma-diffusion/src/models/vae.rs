//! The encoder and the decoder of the VAE.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraConv2d, LoraConv2dConfig};

use super::{
    Attention, AttentionConfig, Downsample2D, ResnetBlock2D, ResnetBlock2DConfig, Upsample2D,
};
use crate::nn::GroupNorm;

/// diffusers' epsilon for all normalisations of the VAE.
const EPS: f64 = 1e-6;

fn resnet(
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    device: &Device,
) -> ResnetBlock2D {
    ResnetBlock2DConfig {
        in_channels,
        out_channels,
        temb_channels: None,
        groups,
        eps: EPS,
    }
    .init(device)
}

/// `DownEncoderBlock2D`.
#[derive(Module, Debug)]
pub struct DownEncoderBlock2D {
    /// Residual blocks.
    pub resnets: Vec<ResnetBlock2D>,
    /// Halves the resolution, except on the last level.
    pub downsamplers: Option<Vec<Downsample2D>>,
}

lora_layers!(DownEncoderBlock2D {
    resnets,
    downsamplers
});

impl DownEncoderBlock2D {
    /// # Shapes
    ///
    /// - input: `[batch, input channels, height, width]`
    /// - output: `[batch, output channels, height / 2, width / 2]`, on the last level of the input's height and width
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut hidden = input;
        for resnet in &self.resnets {
            hidden = resnet.forward(hidden, None);
        }
        for downsampler in self.downsamplers.iter().flatten() {
            hidden = downsampler.forward(hidden);
        }
        hidden
    }
}

/// `UpDecoderBlock2D`.
#[derive(Module, Debug)]
pub struct UpDecoderBlock2D {
    /// Residual blocks.
    pub resnets: Vec<ResnetBlock2D>,
    /// Doubles the resolution, except on the last level.
    pub upsamplers: Option<Vec<Upsample2D>>,
}

lora_layers!(UpDecoderBlock2D {
    resnets,
    upsamplers
});

impl UpDecoderBlock2D {
    /// # Shapes
    ///
    /// - input: `[batch, input channels, height, width]`
    /// - output: `[batch, output channels, 2 * height, 2 * width]`, on the last level of the input's height and width
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut hidden = input;
        for resnet in &self.resnets {
            hidden = resnet.forward(hidden, None);
        }
        for upsampler in self.upsamplers.iter().flatten() {
            hidden = upsampler.forward(hidden, None);
        }
        hidden
    }
}

/// `UNetMidBlock2D` of the VAE.
#[derive(Module, Debug)]
pub struct VaeMidBlock2D {
    /// One before and one after the attention.
    pub resnets: Vec<ResnetBlock2D>,
    /// Single-head attention over all positions.
    pub attentions: Option<Vec<Attention>>,
}

lora_layers!(VaeMidBlock2D {
    resnets,
    attentions
});

impl VaeMidBlock2D {
    fn init(channels: usize, groups: usize, attention: bool, device: &Device) -> Self {
        let attention = attention.then(|| {
            vec![
                AttentionConfig {
                    query_dim: channels,
                    context_dim: channels,
                    heads: 1,
                    qkv_bias: true,
                    group_norm: Some((groups, EPS)),
                    // `upcast_softmax` in diffusers' `UNetMidBlock2D`.
                    upcast: true,
                }
                .init(device),
            ]
        });
        Self {
            resnets: (0..2)
                .map(|_| resnet(channels, channels, groups, device))
                .collect(),
            attentions: attention,
        }
    }

    /// # Shapes
    ///
    /// - input and output: `[batch, channels, height, width]`
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut hidden = input;
        for (index, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, None);
            let attention = self.attentions.as_ref().and_then(|all| all.get(index));
            if let Some(attention) = attention {
                hidden = attention.forward_spatial(hidden);
            }
        }
        hidden
    }
}

/// What encoder and decoder have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VaeLayout<'a> {
    pub(crate) block_out_channels: &'a [usize],
    pub(crate) layers_per_block: usize,
    pub(crate) norm_num_groups: usize,
    pub(crate) mid_block_add_attention: bool,
}

/// From an image to the moments of its latents.
#[derive(Module, Debug)]
pub struct Encoder {
    /// From the image's channels.
    pub conv_in: LoraConv2d,
    /// From the top.
    pub down_blocks: Vec<DownEncoderBlock2D>,
    /// At the bottom.
    pub mid_block: VaeMidBlock2D,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the moments.
    pub conv_out: LoraConv2d,
}

lora_layers!(Encoder {
    conv_in,
    down_blocks,
    mid_block,
    conv_out
});

impl Encoder {
    pub(crate) fn init(
        in_channels: usize,
        moments: usize,
        layout: VaeLayout<'_>,
        device: &Device,
    ) -> Self {
        let channels = layout.block_out_channels;
        let groups = layout.norm_num_groups;
        let top = channels.first().copied().unwrap_or_default();
        let bottom = channels.last().copied().unwrap_or_default();
        let mut input = top;
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (level, &output) in channels.iter().enumerate() {
            let resnets = (0..layout.layers_per_block)
                .map(|index| {
                    resnet(
                        if index == 0 { input } else { output },
                        output,
                        groups,
                        device,
                    )
                })
                .collect();
            let last = level + 1 == channels.len();
            down_blocks.push(DownEncoderBlock2D {
                resnets,
                downsamplers: (!last).then(|| vec![Downsample2D::vae(output, device)]),
            });
            input = output;
        }
        Self {
            conv_in: LoraConv2dConfig::new(in_channels, top, 3).init(device),
            down_blocks,
            mid_block: VaeMidBlock2D::init(bottom, groups, layout.mid_block_add_attention, device),
            conv_norm_out: GroupNorm::init(groups, bottom, EPS, device),
            conv_out: LoraConv2dConfig::new(bottom, moments, 3).init(device),
        }
    }

    /// # Shapes
    ///
    /// - input: `[batch, in_channels, height, width]`
    /// - output: `[batch, moments, height / f, width / f]` with `f` the VAE's factor
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut hidden = self.conv_in.forward(input);
        for block in &self.down_blocks {
            hidden = block.forward(hidden);
        }
        hidden = self.mid_block.forward(hidden);
        self.conv_out
            .forward(self.conv_norm_out.forward_silu(hidden))
    }
}

/// From latents to an image.
#[derive(Module, Debug)]
pub struct Decoder {
    /// From the latents.
    pub conv_in: LoraConv2d,
    /// At the bottom.
    pub mid_block: VaeMidBlock2D,
    /// From the bottom.
    pub up_blocks: Vec<UpDecoderBlock2D>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the image's channels.
    pub conv_out: LoraConv2d,
}

lora_layers!(Decoder {
    conv_in,
    mid_block,
    up_blocks,
    conv_out
});

impl Decoder {
    pub(crate) fn init(
        latent_channels: usize,
        out_channels: usize,
        layout: VaeLayout<'_>,
        device: &Device,
    ) -> Self {
        let channels = layout.block_out_channels;
        let groups = layout.norm_num_groups;
        let top = channels.first().copied().unwrap_or_default();
        let bottom = channels.last().copied().unwrap_or_default();
        let mut input = bottom;
        let mut up_blocks = Vec::with_capacity(channels.len());
        for (index, &output) in channels.iter().rev().enumerate() {
            let resnets = (0..=layout.layers_per_block)
                .map(|index| {
                    resnet(
                        if index == 0 { input } else { output },
                        output,
                        groups,
                        device,
                    )
                })
                .collect();
            let last = index + 1 == channels.len();
            up_blocks.push(UpDecoderBlock2D {
                resnets,
                upsamplers: (!last).then(|| vec![Upsample2D::init(output, device)]),
            });
            input = output;
        }
        Self {
            conv_in: LoraConv2dConfig::new(latent_channels, bottom, 3).init(device),
            mid_block: VaeMidBlock2D::init(bottom, groups, layout.mid_block_add_attention, device),
            up_blocks,
            conv_norm_out: GroupNorm::init(groups, top, EPS, device),
            conv_out: LoraConv2dConfig::new(top, out_channels, 3).init(device),
        }
    }

    /// # Shapes
    ///
    /// - input: `[batch, latent_channels, height, width]`
    /// - output: `[batch, out_channels, height * f, width * f]` with `f` the VAE's factor
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut hidden = self.mid_block.forward(self.conv_in.forward(input));
        for block in &self.up_blocks {
            hidden = block.forward(hidden);
        }
        self.conv_out
            .forward(self.conv_norm_out.forward_silu(hidden))
    }
}
