//! Settings of a pretraining.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
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
        if let TimestepDensity::LogitNormal { mean, deviation } = denoiser.timesteps
            && !(mean.is_finite() && deviation.is_finite() && deviation >= 0.0)
        {
            return wrong(
                "denoiser_training.timesteps",
                "a finite mean and a deviation not below 0",
                format!("{mean} and {deviation}"),
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
    /// Which timesteps are trained on.
    pub timesteps: TimestepDensity,
}

/// How often a timestep is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum TimestepDensity {
    /// All alike.
    Uniform,
    /// `sigmoid(u)` of the way to pure noise, for a normal `u` (arXiv 2403.03206, formula 19).
    LogitNormal {
        /// Mean of `u`: above zero for more noise.
        mean: f64,
        /// Standard deviation of `u`.
        deviation: f64,
    },
}

impl TimestepDensity {
    /// Draws one of `count` timesteps.
    pub(super) fn draw(self, count: usize, rng: &mut impl Rng) -> usize {
        match self {
            Self::Uniform => rng.random_range(0..count),
            Self::LogitNormal { mean, deviation } => {
                let normal: f64 = StandardNormal.sample(rng);
                let share = 1.0 / (1.0 + (-(mean + deviation * normal)).exp());
                ((share * count as f64) as usize).min(count.saturating_sub(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_logit_normal_has_its_median_and_its_spread_where_it_says() {
        let density = TimestepDensity::LogitNormal {
            mean: 0.5,
            deviation: 1.0,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut drawn: Vec<usize> = (0..20_001).map(|_| density.draw(1000, &mut rng)).collect();
        drawn.sort_unstable();
        // sigmoid(0.5), and sigmoid(0.5 + 1.2816), the upper tenth.
        assert!(drawn[10_000].abs_diff(622) < 10, "{}", drawn[10_000]);
        assert!(drawn[18_000].abs_diff(856) < 8, "{}", drawn[18_000]);
        let certain = TimestepDensity::LogitNormal {
            mean: 1e9,
            deviation: 0.0,
        };
        assert_eq!(certain.draw(1000, &mut rng), 999);
    }
}
