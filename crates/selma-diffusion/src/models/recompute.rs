//! The UNet's gradient with little memory: only what goes from one layer to the next is kept, and what is inside a layer is computed again when its gradient is wanted
//! (gradient checkpointing, arXiv 1604.06174).
//!
//! The pass forward builds no graph. The pass back goes through the layers from the last to the first, builds the graph of one of them, and lets go of it. The
//! gradients are those of the plain pass; the price is one more pass forward.

use burn::tensor::{Gradients, Tensor};
use selma_lora::nn::{LoraLayerMut, LoraLayers};

use super::{
    Conditioning, Downsample2D, ResnetBlock2D, Transformer2DModel, UNet2DConditionModel, Upsample2D,
};
use crate::DiffusionError;

/// What a pass forward leaves for the pass back.
#[derive(Debug)]
pub struct Recording {
    /// The sample, then the output of every stage but the last.
    values: Vec<Tensor<4>>,
    /// The embedding of timesteps and added conditions, through the activation.
    temb: Tensor<2>,
    timesteps: Vec<f64>,
    conditioning: Conditioning,
}

/// A layer whose insides are computed again.
enum Layer<'a> {
    ConvIn,
    Resnet(&'a ResnetBlock2D),
    Transformer(&'a Transformer2DModel),
    Downsample(&'a Downsample2D),
    Upsample(&'a Upsample2D),
    ConvOut,
}

/// A layer and what it is computed from: numbers of values, of which 0 is the sample, and the others are outputs of stages.
struct Stage<'a> {
    layer: Layer<'a>,
    input: usize,
    /// A skip connection, appended to the input's channels.
    skip: Option<usize>,
    /// A skip connection of the size that the output is to have.
    like: Option<usize>,
}

/// The stages of a UNet, as its forward pass goes through them.
struct Stages<'a> {
    all: Vec<Stage<'a>>,
    skips: Vec<usize>,
}

impl<'a> Stages<'a> {
    fn of(unet: &'a UNet2DConditionModel) -> Vec<Stage<'a>> {
        let mut stages = Self {
            all: Vec::new(),
            skips: Vec::new(),
        };
        let mut hidden = stages.push(Layer::ConvIn, 0);
        stages.skips.push(hidden);
        for block in &unet.down_blocks {
            for (index, resnet) in block.resnets.iter().enumerate() {
                hidden = stages.push(Layer::Resnet(resnet), hidden);
                hidden = stages.attend(block.attentions.as_ref(), index, hidden);
                stages.skips.push(hidden);
            }
            for downsampler in block.downsamplers.iter().flatten() {
                hidden = stages.push(Layer::Downsample(downsampler), hidden);
                stages.skips.push(hidden);
            }
        }
        if let Some(block) = &unet.mid_block {
            for (index, resnet) in block.resnets.iter().enumerate() {
                hidden = stages.push(Layer::Resnet(resnet), hidden);
                hidden = stages.attend(block.attentions.as_ref(), index, hidden);
            }
        }
        for block in &unet.up_blocks {
            for (index, resnet) in block.resnets.iter().enumerate() {
                let skip = stages.skips.pop();
                hidden = stages.push_with(Layer::Resnet(resnet), hidden, skip, None);
                hidden = stages.attend(block.attentions.as_ref(), index, hidden);
            }
            for upsampler in block.upsamplers.iter().flatten() {
                let like = stages.skips.last().copied();
                hidden = stages.push_with(Layer::Upsample(upsampler), hidden, None, like);
            }
        }
        stages.push(Layer::ConvOut, hidden);
        stages.all
    }

    /// Adds a stage; the number of its output.
    fn push_with(
        &mut self,
        layer: Layer<'a>,
        input: usize,
        skip: Option<usize>,
        like: Option<usize>,
    ) -> usize {
        self.all.push(Stage {
            layer,
            input,
            skip,
            like,
        });
        self.all.len()
    }

    fn push(&mut self, layer: Layer<'a>, input: usize) -> usize {
        self.push_with(layer, input, None, None)
    }

    /// The transformer behind a residual block, if there is one.
    fn attend(
        &mut self,
        attentions: Option<&'a Vec<Transformer2DModel>>,
        index: usize,
        hidden: usize,
    ) -> usize {
        match attentions.and_then(|all| all.get(index)) {
            Some(attention) => self.push(Layer::Transformer(attention), hidden),
            None => hidden,
        }
    }
}

impl Stage<'_> {
    fn forward(
        &self,
        unet: &UNet2DConditionModel,
        input: Tensor<4>,
        skip: Option<Tensor<4>>,
        like: Option<&Tensor<4>>,
        temb: &Tensor<2>,
        context: &Tensor<3>,
    ) -> Tensor<4> {
        let input = match skip {
            Some(skip) => Tensor::cat(vec![input, skip], 1),
            None => input,
        };
        match self.layer {
            Layer::ConvIn => unet.conv_in.forward(input),
            Layer::Resnet(layer) => layer.forward(input, Some(temb)),
            Layer::Transformer(layer) => layer.forward(input, context),
            Layer::Downsample(layer) => layer.forward(input),
            Layer::Upsample(layer) => {
                let size = like.map(|skip| {
                    let [_, _, height, width] = skip.dims();
                    [height, width]
                });
                layer.forward(input, size)
            }
            Layer::ConvOut => {
                let hidden = unet.conv_norm_out.forward_silu(input);
                unet.conv_out.forward(hidden)
            }
        }
    }

    /// Whether the layer has a factor of which the gradient is wanted.
    fn is_tracked(&self, unet: &UNet2DConditionModel) -> bool {
        match self.layer {
            Layer::ConvIn => is_tracked(&unet.conv_in),
            Layer::Resnet(layer) => is_tracked(layer),
            Layer::Transformer(layer) => is_tracked(layer),
            Layer::Downsample(layer) => is_tracked(layer),
            Layer::Upsample(layer) => is_tracked(layer),
            Layer::ConvOut => is_tracked(&unet.conv_out),
        }
    }

    fn uses_temb(&self) -> bool {
        matches!(self.layer, Layer::Resnet(_))
    }
}

impl UNet2DConditionModel {
    /// As [`forward`](Self::forward), and keeps what [`Recording::backward`] needs. To keep no graph as well, the model must have no factor of which a gradient is
    /// wanted, and what it is given must not either.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_recorded(
        &self,
        sample: Tensor<4>,
        timesteps: &[f64],
        conditioning: &Conditioning,
    ) -> Result<(Tensor<4>, Recording), DiffusionError> {
        let temb = self.embed(&sample, timesteps, conditioning.added.as_ref())?;
        let mut values = vec![sample];
        for stage in Stages::of(self) {
            let value = |number: usize| values.get(number).cloned();
            let Some(input) = value(stage.input) else {
                break;
            };
            let like = stage.like.and_then(value);
            let skip = stage.skip.and_then(value);
            let context = &conditioning.context;
            values.push(stage.forward(self, input, skip, like.as_ref(), &temb, context));
        }
        let prediction = values.pop().ok_or_else(|| DiffusionError::Request {
            what: "the stages of the UNet",
            expected: "at least one".to_owned(),
            found: "none".to_owned(),
        })?;
        let recording = Recording {
            values,
            temb,
            timesteps: timesteps.to_vec(),
            conditioning: conditioning.clone(),
        };
        Ok((prediction, recording))
    }
}

impl Recording {
    /// Goes back through the layers. `unet` is the model of the pass forward, with factors of which the gradients are wanted; `gradient` is that of the prediction.
    ///
    /// `each` is given the gradients of a layer's factors as soon as they are there, layer after layer, and once more for the embedding of
    /// the timesteps if that is adapted.
    ///
    /// # Errors
    ///
    /// As [`forward`](UNet2DConditionModel::forward).
    pub fn backward(
        self,
        unet: &UNet2DConditionModel,
        gradient: Tensor<4>,
        each: &mut dyn FnMut(&Gradients),
    ) -> Result<(), DiffusionError> {
        let Self {
            mut values,
            temb,
            timesteps,
            conditioning,
        } = self;
        let stages = Stages::of(unet);
        let tracked: Vec<bool> = stages.iter().map(|stage| stage.is_tracked(unet)).collect();
        let tracked_temb = is_tracked(&unet.time_embedding) || is_tracked(&unet.add_embedding);
        // Which values depend on a factor.
        let mut needed = vec![false];
        for (stage, tracked) in stages.iter().zip(&tracked) {
            let needs = |number: usize| needed.get(number).copied().unwrap_or_default();
            let inputs = needs(stage.input) || stage.skip.is_some_and(needs);
            needed.push(*tracked || inputs || (tracked_temb && stage.uses_temb()));
        }
        let mut upstream: Vec<Option<Tensor<4>>> = vec![None; stages.len()];
        upstream.push(Some(gradient));
        let mut temb_gradient: Option<Tensor<2>> = None;
        for (number, stage) in stages.iter().enumerate().rev() {
            let gradient = upstream.pop().flatten();
            // The output of this stage is an input of later ones alone.
            values.truncate(number + 1);
            let output_needed = needed.get(number + 1).copied().unwrap_or_default();
            let Some(gradient) = gradient.filter(|_| output_needed) else {
                continue;
            };
            let leaf = |number: usize| {
                let value = values.get(number)?.clone();
                let needs = needed.get(number).copied().unwrap_or_default();
                Some(if needs {
                    value.autodiff().require_grad()
                } else {
                    value
                })
            };
            let Some(input) = leaf(stage.input) else {
                continue;
            };
            let skip = stage.skip.and_then(leaf);
            let like = stage.like.and_then(|number| values.get(number));
            let temb = if tracked_temb && stage.uses_temb() {
                temb.clone().autodiff().require_grad()
            } else {
                temb.clone()
            };
            let context = &conditioning.context;
            let output = stage.forward(unet, input.clone(), skip.clone(), like, &temb, context);
            // The gradient of this sum by the output is the gradient given.
            let gradients = (output * gradient).sum().backward();
            each(&gradients);
            let inputs = [(Some(stage.input), Some(input)), (stage.skip, skip)];
            for (number, value) in inputs {
                let (Some(number), Some(value)) = (number, value) else {
                    continue;
                };
                let found = value.grad(&gradients);
                if let (Some(sum), Some(found)) = (upstream.get_mut(number), found) {
                    *sum = Some(match sum.take() {
                        Some(before) => before + found,
                        None => found,
                    });
                }
            }
            if let Some(found) = temb.grad(&gradients) {
                temb_gradient = Some(match temb_gradient {
                    Some(before) => before + found,
                    None => found,
                });
            }
        }
        if let (Some(gradient), Some(sample)) = (temb_gradient, values.first()) {
            let temb = unet.embed(sample, &timesteps, conditioning.added.as_ref())?;
            each(&(temb * gradient).sum().backward());
        }
        Ok(())
    }
}

/// Whether the gradient of a factor of a layer is wanted.
fn is_tracked(layers: &(impl LoraLayers + Clone)) -> bool {
    let mut layers = layers.clone();
    layers.lora_layers("").iter().any(|(_, layer)| match layer {
        LoraLayerMut::Linear(layer) => {
            let mixed = layer.mixture.iter();
            let mixed = mixed.flat_map(|mixture| [&mixture.gate, &mixture.down, &mixture.up]);
            let factors = layer.branches.iter();
            let factors = factors.flat_map(|branch| [&branch.a, &branch.b]);
            mixed.chain(factors).any(Tensor::is_require_grad)
        }
        LoraLayerMut::Conv2d(layer) => layer
            .branches
            .iter()
            .any(|branch| branch.a.is_require_grad() || branch.b.is_require_grad()),
    })
}
