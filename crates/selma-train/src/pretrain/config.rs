//! Settings of a pretraining.

use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::schedulers::SchedulerConfig;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::shards::HALVES;

/// Everything that decides what a pretraining makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Seed of all randomness.
    pub seed: u64,
    /// Longest text in tokens, start and end included.
    pub max_length: usize,
    /// The VAE, as in `vae/config.json`; `scaling_factor` is measured.
    pub vae: AutoencoderKLConfig,
    /// The text encoder, as in `text_encoder/config.json`; the vocabulary's size is that of the tokenizer.
    pub text_encoder: ClipTextConfig,
    /// The UNet, as in `unet/config.json`.
    pub unet: UNet2DConditionModelConfig,
    /// How noise is added and what the UNet predicts, as in `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
    /// How the VAE is trained.
    pub vae_training: VaePretraining,
    /// How text encoder and UNet are trained.
    pub denoiser_training: DenoiserPretraining,
}

impl PretrainConfig {
    /// Checks all settings before anything expensive starts.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for the first that cannot be used.
    pub fn validate(&self) -> Result<(), TrainError> {
        let wrong = |field, expected: &str, found: String| {
            Err(TrainError::Setting {
                field,
                expected: expected.to_owned(),
                found,
            })
        };
        let (vae, denoiser) = (&self.vae_training, &self.denoiser_training);
        for (field, value, least) in [
            ("vae_training.steps", vae.steps, 1),
            ("vae_training.batch_size", vae.batch_size, HALVES),
            ("denoiser_training.steps", denoiser.steps, 1),
            ("denoiser_training.batch_size", denoiser.batch_size, HALVES),
            ("denoiser_training.pairs", denoiser.pairs, 1),
        ] {
            if value < least {
                return wrong(field, &format!("at least {least}"), value.to_string());
            }
        }
        for (field, value) in [
            ("vae_training.learning_rate", vae.learning_rate),
            (
                "vae_training.matrix_learning_rate",
                vae.matrix_learning_rate,
            ),
            ("denoiser_training.learning_rate", denoiser.learning_rate),
            (
                "denoiser_training.matrix_learning_rate",
                denoiser.matrix_learning_rate,
            ),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(field, "a positive number", value.to_string());
            }
        }
        if !(vae.kl_weight.is_finite() && vae.kl_weight >= 0.0) {
            return wrong(
                "vae_training.kl_weight",
                "a number not below 0",
                vae.kl_weight.to_string(),
            );
        }
        let dropout = denoiser.caption_dropout;
        if !(0.0..=1.0).contains(&dropout) {
            return wrong(
                "denoiser_training.caption_dropout",
                "a share from 0 to 1",
                dropout.to_string(),
            );
        }
        Ok(())
    }
}

/// How the VAE is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaePretraining {
    /// Optimizer steps.
    pub steps: usize,
    /// Further steps of the decoder alone.
    pub decoder_steps: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Peak of the one-cycle learning rate of AdamW.
    pub learning_rate: f64,
    /// Peak of the one-cycle learning rate of Muon, which trains the weights of two or more dimensions.
    pub matrix_learning_rate: f64,
    /// Weight of the KL divergence (per latent) beside the squared error (per pixel and channel).
    pub kl_weight: f64,
}

/// How text encoder and UNet are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserPretraining {
    /// Optimizer steps.
    pub steps: usize,
    /// Pairs a step.
    pub batch_size: usize,
    /// Number of pairs; they are drawn from the source once and encoded before the training.
    pub pairs: usize,
    /// Peak of the one-cycle learning rate of AdamW.
    pub learning_rate: f64,
    /// Peak of the one-cycle learning rate of Muon, which trains the weights of two or more dimensions.
    pub matrix_learning_rate: f64,
    /// Share of captions replaced by the empty one, for classifier-free guidance.
    pub caption_dropout: f64,
}
