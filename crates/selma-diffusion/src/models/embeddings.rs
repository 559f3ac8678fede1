//! How a timestep enters the UNet.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use selma_lora::lora_layers;
use selma_lora::nn::{LoraLinear, LoraLinearConfig};

use crate::nn::Activation;

/// The sinusoidal embedding of timesteps (diffusers `get_timestep_embedding`, `max_period` 10,000).
///
/// Computed on the host in `f64`, so that large timesteps lose nothing to rounding.
///
/// # Shapes
///
/// - timesteps: one value per sample, fractional ones allowed
/// - output: `[timesteps.len(), dim]`
#[must_use]
pub fn timestep_embedding(
    timesteps: &[f64],
    dim: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f64,
    device: &Device,
) -> Tensor<2> {
    let half = dim / 2;
    let mut values = Vec::with_capacity(timesteps.len() * dim);
    for &timestep in timesteps {
        let angles = (0..half).map(|index| {
            let exponent = -(10_000f64.ln()) * index as f64 / (half as f64 - downscale_freq_shift);
            timestep * exponent.exp()
        });
        let sines = angles.clone().map(|angle| angle.sin() as f32);
        let cosines = angles.map(|angle| angle.cos() as f32);
        if flip_sin_to_cos {
            values.extend(cosines.chain(sines));
        } else {
            values.extend(sines.chain(cosines));
        }
        if dim % 2 == 1 {
            values.push(0.0);
        }
    }
    Tensor::from_data(TensorData::new(values, [timesteps.len(), dim]), device)
}

/// The two-layer network over the sinusoidal embedding.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    /// To the width of the time embedding.
    pub linear_1: LoraLinear,
    /// Same width.
    pub linear_2: LoraLinear,
}

lora_layers!(TimestepEmbedding { linear_1, linear_2 });

impl TimestepEmbedding {
    /// From `in_channels` to `time_embed_dim`.
    #[must_use]
    pub fn init(in_channels: usize, time_embed_dim: usize, device: &Device) -> Self {
        Self {
            linear_1: LoraLinearConfig::new(in_channels, time_embed_dim).init(device),
            linear_2: LoraLinearConfig::new(time_embed_dim, time_embed_dim).init(device),
        }
    }

    /// # Shapes
    ///
    /// - input: `[batch, in_channels]`
    /// - output: `[batch, time_embed_dim]`
    #[must_use]
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let hidden = Activation::Silu.forward(self.linear_1.forward(input));
        self.linear_2.forward(hidden)
    }
}
