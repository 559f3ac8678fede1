//! Predicting the noise in noised pictures.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use selma_diffusion::DiffusionError;
use selma_diffusion::models::Conditioning;
use selma_diffusion::schedulers::{NoiseSchedule, PredictionType, SchedulerConfig};

use super::{Loss, Objective, Samples, sliced};
use crate::{Denoiser, TrainError};

/// Samples of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Clean latents, scaled: `[batch, channels, height, width]`.
    pub latents: Tensor<4>,
    /// Noise of unit variance, same shape: what is to be predicted.
    pub noise: Tensor<4>,
    /// The noise in the latents where it is other than `noise`, same shape (input perturbation, arXiv 2301.11706).
    pub input_noise: Option<Tensor<4>>,
    /// A training timestep for each sample.
    pub timesteps: Vec<usize>,
    /// The texts' embeddings, and what SDXL adds to them.
    pub conditioning: Conditioning,
}

impl Samples for Batch {
    fn count(&self) -> usize {
        self.timesteps.len()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let part = |tensor: &Tensor<4>| tensor.clone().slice(range.clone());
        Self {
            latents: part(&self.latents),
            noise: part(&self.noise),
            input_noise: self.input_noise.as_ref().map(part),
            timesteps: sliced(&self.timesteps, &range),
            conditioning: self.conditioning.slice(range),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            latents: self.latents.to_device(device),
            noise: self.noise.to_device(device),
            input_noise: self.input_noise.map(|noise| noise.to_device(device)),
            timesteps: self.timesteps,
            conditioning: self.conditioning.to_device(device),
        }
    }
}

/// The squared error of the predicted noise, velocity or sample (arXiv 2006.11239, equation 14; velocity: arXiv
/// 2202.00512), unweighted unless a gamma is given, as in diffusers' `train_text_to_image_lora.py`.
#[derive(Debug, Clone)]
pub struct Denoising {
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    snr_gamma: Option<f64>,
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
            snr_gamma: None,
        })
    }

    /// Weighs timesteps by their signal-to-noise ratio, cut off at `gamma` (min-SNR, arXiv 2303.09556; 5 is usual), or not
    /// at all.
    #[must_use]
    pub fn with_snr_gamma(self, gamma: Option<f64>) -> Self {
        Self {
            snr_gamma: gamma,
            ..self
        }
    }

    /// Latents with noise in them, and what the model should say about these.
    pub(super) fn noised(
        &self,
        clean: Tensor<4>,
        noise: Tensor<4>,
        input_noise: Option<Tensor<4>>,
        timesteps: &[usize],
    ) -> Result<(Tensor<4>, Tensor<4>), TrainError> {
        let alphas = self.alphas(timesteps)?;
        let device = clean.device();
        let signal = of_samples(alphas.iter().map(|alpha| alpha.sqrt()), &device);
        let spread = of_samples(alphas.iter().map(|alpha| (1.0 - alpha).sqrt()), &device);
        let added = input_noise.unwrap_or_else(|| noise.clone());
        let noisy = clean.clone() * signal.clone() + added * spread.clone();
        let target = match self.prediction_type {
            PredictionType::Epsilon => noise,
            PredictionType::VPrediction => noise * signal - clean * spread,
            PredictionType::Sample => clean,
        };
        Ok((noisy, target))
    }

    fn alphas(&self, timesteps: &[usize]) -> Result<Vec<f64>, TrainError> {
        let alphas = timesteps.iter().map(|&t| self.schedule.alpha_cumprod(t));
        let alphas: Result<Vec<f64>, _> = alphas.collect();
        Ok(alphas.map_err(DiffusionError::from)?)
    }

    /// The weight of a timestep with the ratio `alpha / (1 - alpha)`, finite also where there is no signal or no noise.
    fn weight(&self, alpha: f64, gamma: f64) -> f64 {
        // Multiplied by the part of the noise, so that nothing is divided by zero.
        let (signal, noise) = (alpha, 1.0 - alpha);
        let smaller = signal.min(gamma * noise);
        match self.prediction_type {
            PredictionType::Epsilon if signal > 0.0 => smaller / signal,
            PredictionType::Epsilon => 1.0,
            PredictionType::VPrediction => smaller,
            PredictionType::Sample if noise > 0.0 => smaller / noise,
            PredictionType::Sample => gamma,
        }
    }
}

impl Objective for Denoising {
    type Batch = Batch;

    fn loss(&self, model: &Denoiser<'_>, batch: &Batch) -> Result<Loss, TrainError> {
        let (clean, noise) = (batch.latents.clone(), batch.noise.clone());
        let added = batch.input_noise.clone();
        let (noisy, target) = self.noised(clean, noise, added, &batch.timesteps)?;
        let prediction = model.predict(noisy, &batch.timesteps, &batch.conditioning)?;
        let squares = (prediction - target).square();
        let Some(gamma) = self.snr_gamma else {
            return Ok(Loss::new(squares.mean()));
        };
        let alphas = self.alphas(&batch.timesteps)?;
        let weights = alphas.iter().map(|&alpha| self.weight(alpha, gamma));
        let weights = of_samples(weights, &batch.latents.device());
        Ok(Loss::new((squares * weights).mean()))
    }
}

/// A number for each sample: `[batch, 1, 1, 1]`.
fn of_samples(values: impl Iterator<Item = f64>, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let shape = [values.len(), 1, 1, 1];
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_paper_and_finite_at_both_ends() {
        let weight = |prediction_type, alpha: f64, gamma| {
            let config = SchedulerConfig::default();
            let objective = Denoising {
                prediction_type,
                ..Denoising::new(&config).unwrap()
            };
            objective.weight(alpha, gamma)
        };
        for alpha in [0.05, 0.5, 0.9, 0.99] {
            let snr = alpha / (1.0 - alpha);
            let cut = f64::min(snr, 5.0);
            for (kind, expected) in [
                (PredictionType::Epsilon, cut / snr),
                (PredictionType::VPrediction, cut / (snr + 1.0)),
                (PredictionType::Sample, cut),
            ] {
                let found = weight(kind, alpha, 5.0);
                assert!((found - expected).abs() < 1e-12, "{kind:?}: {found}");
            }
        }
        for (kind, no_signal, no_noise) in [
            (PredictionType::Epsilon, 1.0, 0.0),
            (PredictionType::VPrediction, 0.0, 0.0),
            (PredictionType::Sample, 0.0, 5.0),
        ] {
            assert_eq!(weight(kind, 0.0, 5.0), no_signal);
            assert_eq!(weight(kind, 1.0, 5.0), no_noise);
        }
    }
}
