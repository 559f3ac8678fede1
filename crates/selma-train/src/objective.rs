//! What a training minimises.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use selma_diffusion::DiffusionError;
use selma_diffusion::models::{Conditioning, UNet2DConditionModel};
use selma_diffusion::schedulers::{NoiseSchedule, PredictionType, SchedulerConfig};

use crate::TrainError;

/// Samples of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Clean latents, scaled: `[batch, channels, height, width]`.
    pub latents: Tensor<4>,
    /// Noise of unit variance, same shape.
    pub noise: Tensor<4>,
    /// A training timestep for each sample.
    pub timesteps: Vec<usize>,
    /// The texts' embeddings, and what SDXL adds to them.
    pub conditioning: Conditioning,
}

impl Batch {
    /// The samples of a range.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        Self {
            latents: self.latents.clone().slice(range.clone()),
            noise: self.noise.clone().slice(range.clone()),
            timesteps: self
                .timesteps
                .iter()
                .copied()
                .skip(range.start)
                .take(range.len())
                .collect(),
            conditioning: self.conditioning.slice(range),
        }
    }
}

/// A loss over batches.
pub trait Objective: Sync {
    /// The loss of a batch: its mean, `[1]`.
    ///
    /// # Errors
    ///
    /// If the batch does not fit the objective.
    fn loss(&self, unet: &UNet2DConditionModel, batch: &Batch) -> Result<Tensor<1>, TrainError>;
}

/// The squared error of the predicted noise, velocity or sample (arXiv 2006.11239, equation 14; velocity: arXiv
/// 2202.00512), unweighted, as in diffusers' `train_text_to_image_lora.py`.
#[derive(Debug, Clone)]
pub struct Denoising {
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
}

impl Denoising {
    /// The objective that a checkpoint was trained with.
    ///
    /// # Errors
    ///
    /// If the configuration's schedule is out of range.
    pub fn new(config: &SchedulerConfig) -> Result<Self, TrainError> {
        Ok(Self {
            schedule: NoiseSchedule::new(config).map_err(DiffusionError::from)?,
            prediction_type: config.prediction_type(),
        })
    }
}

impl Objective for Denoising {
    fn loss(&self, unet: &UNet2DConditionModel, batch: &Batch) -> Result<Tensor<1>, TrainError> {
        let alphas = batch
            .timesteps
            .iter()
            .map(|&t| self.schedule.alpha_cumprod(t));
        let alphas = alphas
            .collect::<Result<Vec<f64>, _>>()
            .map_err(DiffusionError::from)?;
        let device = batch.latents.device();
        let per_sample = |coefficient: fn(f64) -> f64| {
            let values: Vec<f32> = alphas
                .iter()
                .map(|&alpha| coefficient(alpha) as f32)
                .collect();
            Tensor::<4>::from_data(TensorData::new(values, [alphas.len(), 1, 1, 1]), &device)
        };
        let signal = per_sample(f64::sqrt);
        let spread = per_sample(|alpha| (1.0 - alpha).sqrt());
        let (clean, noise) = (batch.latents.clone(), batch.noise.clone());
        let noisy = clean.clone() * signal.clone() + noise.clone() * spread.clone();
        let target = match self.prediction_type {
            PredictionType::Epsilon => noise,
            PredictionType::VPrediction => noise * signal - clean * spread,
            PredictionType::Sample => clean,
        };
        let timesteps: Vec<f64> = batch.timesteps.iter().map(|&t| t as f64).collect();
        let prediction = unet.forward(noisy, &timesteps, &batch.conditioning)?;
        Ok((prediction - target).square().mean())
    }
}
