//! Settings of a pretraining.

use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use serde::{Deserialize, Serialize};

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
    /// How the VAE is trained.
    pub vae_training: VaePretraining,
    /// How text encoder and UNet are trained.
    pub denoiser_training: DenoiserPretraining,
}

/// How the VAE is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaePretraining {
    /// Optimizer steps.
    pub steps: usize,
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
