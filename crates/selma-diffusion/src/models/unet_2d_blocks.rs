//! The blocks of the UNet.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use selma_lora::lora_layers;

use super::{
    Downsample2D, ResnetBlock2D, ResnetBlock2DConfig, Transformer2DModel, Transformer2DModelConfig,
    Upsample2D,
};

/// What the blocks of one level have in common.
#[derive(Debug, Clone, Copy)]
pub struct UNetBlockConfig {
    /// Channels of the block's output.
    pub out_channels: usize,
    /// Width of the time embedding.
    pub temb_channels: usize,
    /// Groups of all normalisations.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' normalisations.
    pub norm_eps: f64,
    /// Transformers after the residual blocks; none in `DownBlock2D` and `UpBlock2D`.
    pub attention: Option<Transformer2DModelConfig>,
}

impl UNetBlockConfig {
    fn resnet(&self, in_channels: usize, device: &Device) -> ResnetBlock2D {
        ResnetBlock2DConfig {
            in_channels,
            out_channels: self.out_channels,
            temb_channels: Some(self.temb_channels),
            groups: self.norm_num_groups,
            eps: self.norm_eps,
        }
        .init(device)
    }

    fn attentions(&self, count: usize, device: &Device) -> Option<Vec<Transformer2DModel>> {
        self.attention
            .map(|config| (0..count).map(|_| config.init(device)).collect())
    }

    /// A block on the way down; the input of the first residual block has `in_channels`.
    #[must_use]
    pub fn down(
        &self,
        in_channels: usize,
        layers: usize,
        last: bool,
        device: &Device,
    ) -> DownBlock2D {
        let input_of = |index| {
            if index == 0 {
                in_channels
            } else {
                self.out_channels
            }
        };
        DownBlock2D {
            resnets: (0..layers)
                .map(|index| self.resnet(input_of(index), device))
                .collect(),
            attentions: self.attentions(layers, device),
            downsamplers: (!last).then(|| vec![Downsample2D::unet(self.out_channels, device)]),
        }
    }

    /// The block at the bottom.
    #[must_use]
    pub fn mid(&self, device: &Device) -> MidBlock2D {
        MidBlock2D {
            resnets: (0..2)
                .map(|_| self.resnet(self.out_channels, device))
                .collect(),
            attentions: self.attentions(1, device),
        }
    }

    /// A block on the way up; each residual block's input is the hidden state with a skip connection's channels
    /// appended: `in_channels` holds the sums.
    #[must_use]
    pub fn up(&self, in_channels: &[usize], last: bool, device: &Device) -> UpBlock2D {
        UpBlock2D {
            resnets: in_channels
                .iter()
                .map(|&channels| self.resnet(channels, device))
                .collect(),
            attentions: self.attentions(in_channels.len(), device),
            upsamplers: (!last).then(|| vec![Upsample2D::init(self.out_channels, device)]),
        }
    }
}

/// The transformer that follows a residual block, if the block has any.
fn attend(
    attentions: Option<&Vec<Transformer2DModel>>,
    index: usize,
    hidden: Tensor<4>,
    context: &Tensor<3>,
) -> Tensor<4> {
    match attentions.and_then(|all| all.get(index)) {
        Some(attention) => attention.forward(hidden, context),
        None => hidden,
    }
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
#[derive(Module, Debug)]
pub struct DownBlock2D {
    /// Residual blocks.
    pub resnets: Vec<ResnetBlock2D>,
    /// One transformer after each residual block.
    pub attentions: Option<Vec<Transformer2DModel>>,
    /// Halves the resolution at the end, except on the last level.
    pub downsamplers: Option<Vec<Downsample2D>>,
}

lora_layers!(DownBlock2D {
    resnets,
    attentions,
    downsamplers
});

impl DownBlock2D {
    /// Runs the block and appends every intermediate result to `skips`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, in_channels, height, width]`
    /// - temb: `[batch, temb_channels]`, through the activation
    /// - context: `[batch, text length, cross_attention_dim]`
    /// - output: `[batch, out_channels, height / 2, width / 2]`, or the full resolution on the last level
    #[must_use]
    pub fn forward(
        &self,
        input: Tensor<4>,
        temb: &Tensor<2>,
        context: &Tensor<3>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut hidden = input;
        for (index, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, Some(temb));
            hidden = attend(self.attentions.as_ref(), index, hidden, context);
            skips.push(hidden.clone());
        }
        for downsampler in self.downsamplers.iter().flatten() {
            hidden = downsampler.forward(hidden);
            skips.push(hidden.clone());
        }
        hidden
    }
}

/// `UNetMidBlock2DCrossAttn`.
#[derive(Module, Debug)]
pub struct MidBlock2D {
    /// Two residual blocks.
    pub resnets: Vec<ResnetBlock2D>,
    /// One transformer between them.
    pub attentions: Option<Vec<Transformer2DModel>>,
}

lora_layers!(MidBlock2D {
    resnets,
    attentions
});

impl MidBlock2D {
    /// # Shapes
    ///
    /// - input and output: `[batch, channels, height, width]`
    /// - temb: `[batch, temb_channels]`, through the activation
    /// - context: `[batch, text length, cross_attention_dim]`
    #[must_use]
    pub fn forward(&self, input: Tensor<4>, temb: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let mut hidden = input;
        for (index, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, Some(temb));
            hidden = attend(self.attentions.as_ref(), index, hidden, context);
        }
        hidden
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
#[derive(Module, Debug)]
pub struct UpBlock2D {
    /// Residual blocks, each over the hidden state and one skip connection.
    pub resnets: Vec<ResnetBlock2D>,
    /// One transformer after each residual block.
    pub attentions: Option<Vec<Transformer2DModel>>,
    /// Doubles the resolution at the end, except on the last level.
    pub upsamplers: Option<Vec<Upsample2D>>,
}

lora_layers!(UpBlock2D {
    resnets,
    attentions,
    upsamplers
});

impl UpBlock2D {
    /// Runs the block, taking one skip connection per residual block from the end of `skips`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, channels, height, width]`
    /// - temb: `[batch, temb_channels]`, through the activation
    /// - context: `[batch, text length, cross_attention_dim]`
    /// - output: `[batch, out_channels, height', width']` at the resolution of the next skip connection
    #[must_use]
    pub fn forward(
        &self,
        input: Tensor<4>,
        temb: &Tensor<2>,
        context: &Tensor<3>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut hidden = input;
        for (index, resnet) in self.resnets.iter().enumerate() {
            if let Some(skip) = skips.pop() {
                hidden = Tensor::cat(vec![hidden, skip], 1);
            }
            hidden = resnet.forward(hidden, Some(temb));
            hidden = attend(self.attentions.as_ref(), index, hidden, context);
        }
        for upsampler in self.upsamplers.iter().flatten() {
            let size = skips.last().map(|skip| {
                let [_, _, height, width] = skip.dims();
                [height, width]
            });
            hidden = upsampler.forward(hidden, size);
        }
        hidden
    }
}
