//! Preferring one of two pictures of a prompt.

use std::ops::Range;

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Device, Tensor};
use selma_diffusion::models::Conditioning;
use selma_diffusion::schedulers::SchedulerConfig;

use super::{Denoising, Loss, Objective, Samples, sliced};
use crate::{Denoiser, TrainError};

/// Pairs of pictures of one text each, of one forward pass.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// Clean latents of the better pictures, scaled: `[pairs, channels, height, width]`.
    pub chosen: Tensor<4>,
    /// Those of the others, same shape.
    pub rejected: Tensor<4>,
    /// Noise of unit variance, same shape; both pictures of a pair get the same.
    pub noise: Tensor<4>,
    /// A training timestep for each pair.
    pub timesteps: Vec<usize>,
    /// A text for each pair.
    pub conditioning: Conditioning,
}

impl Samples for PairBatch {
    fn count(&self) -> usize {
        self.timesteps.len()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let part = |tensor: &Tensor<4>| tensor.clone().slice(range.clone());
        Self {
            chosen: part(&self.chosen),
            rejected: part(&self.rejected),
            noise: part(&self.noise),
            timesteps: sliced(&self.timesteps, &range),
            conditioning: self.conditioning.slice(range),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            chosen: self.chosen.to_device(device),
            rejected: self.rejected.to_device(device),
            noise: self.noise.to_device(device),
            timesteps: self.timesteps,
            conditioning: self.conditioning.to_device(device),
        }
    }
}

/// Diffusion-DPO (arXiv 2311.12908, equation 14) as diffusers' `train_diffusion_dpo.py` computes it.
///
/// `-log sigmoid(-beta / 2 * ((l_chosen - l_rejected) - (r_chosen - r_rejected)))`, where `l` is the squared error of the model
/// and `r` that of the model without its adapter. The accuracy is the share of pairs for which the bracket is negative.
#[derive(Debug, Clone)]
pub struct DiffusionDpo {
    denoising: Denoising,
    beta: f64,
}

impl DiffusionDpo {
    /// `beta` is diffusers' `beta_dpo`: how strongly the model is held to its reference; 5000 in the paper for Stable Diffusion 1.5, and 2000 to 5000 are usual.
    ///
    /// # Errors
    ///
    /// If the configuration's schedule is out of range, or `beta` no positive number.
    pub fn new(config: &SchedulerConfig, beta: f64) -> Result<Self, TrainError> {
        if !(beta.is_finite() && beta > 0.0) {
            return Err(TrainError::Setting {
                field: "dpo_beta",
                expected: "a positive number".to_owned(),
                found: beta.to_string(),
            });
        }
        let denoising = Denoising::new(config)?;
        Ok(Self { denoising, beta })
    }
}

impl Objective for DiffusionDpo {
    type Batch = PairBatch;

    fn loss(&self, model: &Denoiser<'_>, batch: &PairBatch) -> Result<Loss, TrainError> {
        let pairs = batch.count();
        // Both pictures of the pairs in one pass: the better ones first.
        let twice = |tensor: &Tensor<4>| Tensor::cat(vec![tensor.clone(), tensor.clone()], 0);
        let clean = Tensor::cat(vec![batch.chosen.clone(), batch.rejected.clone()], 0);
        let timesteps = [batch.timesteps.as_slice(), &batch.timesteps].concat();
        let conditioning = batch.conditioning.clone();
        let conditioning = conditioning.clone().followed_by(conditioning);
        let (noisy, target) =
            self.denoising
                .noised(clean, twice(&batch.noise), None, &timesteps)?;
        // By how much the model errs more on the better picture than on the other.
        let difference = |prediction: Tensor<4>| {
            let errors = (prediction - target.clone()).square();
            let errors: Tensor<1> = errors.flatten::<2>(1, 3).mean_dim(1).squeeze_dim(1);
            errors.clone().slice(0..pairs) - errors.slice(pairs..2 * pairs)
        };
        let reference = difference(model.reference(noisy.clone(), &timesteps, &conditioning)?);
        let model = difference(model.predict(noisy, &timesteps, &conditioning)?);
        let logits = (reference - model).mul_scalar(0.5 * self.beta);
        let right = logits.clone().without_autodiff().greater_elem(0.0);
        Ok(Loss {
            value: log_sigmoid(logits).neg().mean(),
            accuracy: Some(right.float().mean()),
        })
    }
}
