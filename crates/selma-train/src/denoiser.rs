//! The network as an objective sees it.

use std::sync::OnceLock;

use burn::tensor::Tensor;
use selma_diffusion::models::{Conditioning, UNet2DConditionModel};

use crate::TrainError;
use crate::factors::without_branches;

/// What an objective may ask of the network that is trained.
#[derive(Debug)]
pub struct Denoiser<'a> {
    unet: &'a UNet2DConditionModel,
    reference: OnceLock<UNet2DConditionModel>,
}

impl<'a> Denoiser<'a> {
    /// A network as it stands.
    #[must_use]
    pub fn new(unet: &'a UNet2DConditionModel) -> Self {
        Self {
            unet,
            reference: OnceLock::new(),
        }
    }

    /// The network's prediction for noisy latents, from which gradients flow back: `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit the network.
    pub fn predict(
        &self,
        noisy: Tensor<4>,
        timesteps: &[usize],
        conditioning: &Conditioning,
    ) -> Result<Tensor<4>, TrainError> {
        forward(self.unet, noisy, timesteps, conditioning)
    }

    /// What the network predicted before the training: without the branches that are trained, and without a gradient.
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict).
    pub fn reference(
        &self,
        noisy: Tensor<4>,
        timesteps: &[usize],
        conditioning: &Conditioning,
    ) -> Result<Tensor<4>, TrainError> {
        let unet = self.reference.get_or_init(|| {
            let mut unet = self.unet.clone();
            without_branches(&mut unet);
            unet
        });
        forward(unet, noisy, timesteps, conditioning)
    }
}

fn forward(
    unet: &UNet2DConditionModel,
    noisy: Tensor<4>,
    timesteps: &[usize],
    conditioning: &Conditioning,
) -> Result<Tensor<4>, TrainError> {
    let timesteps: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
    Ok(unet.forward(noisy, &timesteps, conditioning)?)
}
