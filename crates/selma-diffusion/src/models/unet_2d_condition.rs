//! The denoising network.

use burn::module::Module;
use burn::tensor::Tensor;
use selma_lora::lora_layers;
use selma_lora::nn::LoraConv2d;

use super::{
    AddedConditioning, Conditioning, DownBlock2D, MidBlock2D, TimeIds, TimestepEmbedding,
    UpBlock2D, timestep_embedding,
};
use crate::DiffusionError;
use crate::nn::{Activation, GroupNorm};

/// The denoising network of Stable Diffusion.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    /// From latents to channels.
    pub conv_in: LoraConv2d,
    /// Over the sinusoidal embedding of the timestep.
    pub time_embedding: TimestepEmbedding,
    /// Over the pooled text and the embeddings of the time ids (SDXL).
    pub add_embedding: Option<TimestepEmbedding>,
    /// From the top.
    pub down_blocks: Vec<DownBlock2D>,
    /// At the bottom, if the model has it.
    pub mid_block: Option<MidBlock2D>,
    /// From the bottom.
    pub up_blocks: Vec<UpBlock2D>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// From channels to the prediction.
    pub conv_out: LoraConv2d,
    /// Width of the sinusoidal embedding.
    pub time_channels: usize,
    /// Widths of the pooled text and of the embedding of one time id (SDXL).
    #[module(skip)]
    pub added_channels: Option<(usize, usize)>,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies.
    pub freq_shift: f64,
}

lora_layers!(UNet2DConditionModel {
    conv_in,
    time_embedding,
    add_embedding,
    down_blocks,
    mid_block,
    up_blocks,
    conv_out,
});

impl UNet2DConditionModel {
    /// Predicts noise, velocity or sample (whatever the model was trained for).
    ///
    /// # Shapes
    ///
    /// - sample: `[batch, in_channels, height, width]`
    /// - timesteps: one per sample, in `0..1000`
    /// - conditioning: what every sample is conditioned on, with added conditions where the model has them
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Errors
    ///
    /// [`DiffusionError::Request`] if added conditions are missing, are there although the model has none, or are not
    /// one for each sample.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f64],
        conditioning: &Conditioning,
    ) -> Result<Tensor<4>, DiffusionError> {
        let temb = self.embed(&sample, timesteps, conditioning.added.as_ref())?;
        let context = &conditioning.context;
        let mut hidden = self.conv_in.forward(sample);
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &temb, context, &mut skips);
        }
        if let Some(block) = &self.mid_block {
            hidden = block.forward(hidden, &temb, context);
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &temb, context, &mut skips);
        }
        Ok(self
            .conv_out
            .forward(self.conv_norm_out.forward_silu(hidden)))
    }

    /// The embedding of timesteps and added conditions: `[batch, temb_channels]`, through the activation, which every residual block applies to the same values: once
    /// is enough.
    pub(super) fn embed(
        &self,
        sample: &Tensor<4>,
        timesteps: &[f64],
        added: Option<&AddedConditioning>,
    ) -> Result<Tensor<2>, DiffusionError> {
        let embedding = self
            .sinusoids(timesteps, self.time_channels, sample)
            .cast(sample.dtype());
        let mut temb = self.time_embedding.forward(embedding);
        if let Some(added) = self.added(added, sample)? {
            temb = temb + added;
        }
        Ok(Activation::Silu.forward(temb))
    }

    fn sinusoids(&self, values: &[f64], dim: usize, like: &Tensor<4>) -> Tensor<2> {
        timestep_embedding(
            values,
            dim,
            self.flip_sin_to_cos,
            self.freq_shift,
            &like.device(),
        )
    }

    /// The embedding of the added conditions: `[batch, temb_channels]`.
    fn added(
        &self,
        added: Option<&AddedConditioning>,
        sample: &Tensor<4>,
    ) -> Result<Option<Tensor<2>>, DiffusionError> {
        let [batch, ..] = sample.dims();
        let (layer, (text, time), added) = match (&self.add_embedding, self.added_channels, added) {
            (Some(layer), Some(channels), Some(added)) => (layer, channels, added),
            (None, _, None) => return Ok(None),
            (_, _, added) => {
                let (found, expected) = match added {
                    Some(_) => ("pooled texts and time ids", "none"),
                    None => ("none", "pooled texts and time ids"),
                };
                return Err(wrong(expected.to_owned(), found.to_owned()));
            }
        };
        let found = (added.text_embeds.dims(), added.time_ids.len());
        if found != ([batch, text], batch) {
            return Err(wrong(
                format!("pooled texts of [{batch}, {text}] and {batch} time ids"),
                format!("pooled texts of {:?} and {} time ids", found.0, found.1),
            ));
        }
        let ids: Vec<f64> = added.time_ids.iter().flat_map(TimeIds::values).collect();
        let times = self
            .sinusoids(&ids, time, sample)
            .reshape([batch, TimeIds::COUNT * time])
            .cast(sample.dtype());
        let all = Tensor::cat(vec![added.text_embeds.clone(), times], 1);
        Ok(Some(layer.forward(all)))
    }
}

fn wrong(expected: String, found: String) -> DiffusionError {
    DiffusionError::Request {
        what: "added conditions of the UNet",
        expected,
        found,
    }
}
