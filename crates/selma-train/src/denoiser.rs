//! The network as an objective sees it.

use std::cell::{OnceCell, RefCell};

use burn::tensor::{FloatDType, Tensor};
use selma_diffusion::models::{Conditioning, Recording, UNet2DConditionModel};

use crate::TrainError;
use crate::factors::{Gathered, untrack, without_branches};

/// What an objective may ask of the network that is trained.
#[derive(Debug)]
pub struct Denoiser<'a> {
    unet: &'a UNet2DConditionModel,
    /// The number type that the network is asked in; predictions are in `f32`.
    computed: FloatDType,
    /// The network without a graph, where what is inside its layers is computed again for the gradient.
    plain: Option<UNet2DConditionModel>,
    /// Predictions from which gradients flow back, and how they go on from there.
    recorded: RefCell<Vec<(Tensor<4>, Recording)>>,
    reference: OnceCell<UNet2DConditionModel>,
}

impl<'a> Denoiser<'a> {
    /// A network as it stands, which computes in `f32`.
    #[must_use]
    pub fn new(unet: &'a UNet2DConditionModel) -> Self {
        Self {
            unet,
            computed: FloatDType::F32,
            plain: None,
            recorded: RefCell::default(),
            reference: OnceCell::new(),
        }
    }

    /// A network of which no more is kept for the gradient than what goes from layer to layer. Gradients flow to the trained branches alone, not to what the predictions are
    /// asked for with.
    pub(crate) fn recomputing(unet: &'a UNet2DConditionModel) -> Self {
        let mut plain = unet.clone();
        untrack(&mut plain);
        Self {
            plain: Some(plain),
            ..Self::new(unet)
        }
    }

    /// Sets the number type that the network computes in. Its weights may be of another, and predictions are in `f32` all the same.
    #[must_use]
    pub fn computing_in(self, computed: FloatDType) -> Self {
        Self { computed, ..self }
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
        let timesteps = floats(timesteps);
        let (noisy, conditioning) = self.asked(noisy, conditioning);
        let Some(plain) = &self.plain else {
            let prediction = self.unet.forward(noisy, &timesteps, &conditioning)?;
            return Ok(prediction.cast(FloatDType::F32));
        };
        let (prediction, recording) = plain.forward_recorded(noisy, &timesteps, &conditioning)?;
        let prediction = prediction.cast(FloatDType::F32);
        let prediction = prediction.autodiff().require_grad();
        let mut recorded = self.recorded.borrow_mut();
        recorded.push((prediction.clone(), recording));
        Ok(prediction)
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
        let (noisy, conditioning) = self.asked(noisy, conditioning);
        let prediction = unet.forward(noisy, &floats(timesteps), &conditioning)?;
        Ok(prediction.cast(FloatDType::F32))
    }

    /// What the network is asked with, in the number type that it computes in.
    fn asked(&self, noisy: Tensor<4>, conditioning: &Conditioning) -> (Tensor<4>, Conditioning) {
        let conditioning = conditioning.clone().cast(self.computed);
        (noisy.cast(self.computed), conditioning)
    }

    /// The gradients of a loss by the factors, flat and in their order.
    pub(crate) fn gradients(self, loss: &Tensor<1>) -> Result<Vec<Tensor<1>>, TrainError> {
        let mut factors = self.unet.clone();
        let mut gathered = Gathered::default();
        let gradients = loss.backward();
        if self.plain.is_none() {
            gathered.add(&mut factors, &gradients);
        }
        for (prediction, recording) in self.recorded.into_inner() {
            let Some(gradient) = prediction.grad(&gradients) else {
                continue;
            };
            let gradient = gradient.cast(self.computed);
            recording.backward(self.unet, gradient, &mut |gradients| {
                gathered.add(&mut factors, gradients);
            })?;
        }
        Ok(gathered.finish(&mut factors))
    }
}

fn floats(timesteps: &[usize]) -> Vec<f64> {
    timesteps.iter().map(|&t| t as f64).collect()
}
