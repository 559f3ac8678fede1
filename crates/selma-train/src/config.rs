//! Settings of a training.

use std::num::NonZeroU64;

use selma_dataset::GeometryConfig;
use selma_lora::Dtype;
use serde::{Deserialize, Serialize};

use crate::{LrScheduler, TrainError};

/// Default of [`TrainConfig::crops`].
const CROPS: NonZeroU64 = NonZeroU64::MIN.saturating_add(7);

/// Default of [`TrainConfig::loss_scale`].
const LOSS_SCALE: f64 = 4096.0;

/// How an expert is trained. The defaults are SELMA's for Stable Diffusion (section 4.3 and appendix H of the paper).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: usize,
    /// Samples a forward pass.
    pub batch_size: usize,
    /// Forward passes an optimizer step; the gradient is their mean.
    pub gradient_accumulation: usize,
    /// Parts into which a forward pass is cut, computed side by side on threads of their own. Two pay on a CPU, where a
    /// small model keeps one core busy; on a GPU leave it at 1. Results differ in rounding only.
    pub shards: usize,
    /// Whether what is inside the UNet's layers is computed again for the gradient, instead of being kept: much less memory for a quarter to a third more
    /// time. Results differ in rounding only.
    pub recompute: bool,
    /// Number type that the frozen `UNet` is kept in. In 16 bits it takes half the memory; on the CPU each layer is widened to `f32` while it computes, and GPUs compute in
    /// the type itself. Factors, loss and optimizer are in `f32`.
    #[serde(skip_serializing_if = "is_single")]
    pub dtype: Dtype,
    /// Where gradients are in `f16`, what the loss is multiplied by before the pass back, so that small gradients are not lost; they are divided by it afterwards. A
    /// power of two, which changes no digit; smaller where a gradient overflows.
    #[serde(skip_serializing_if = "is_usual_scale")]
    pub loss_scale: f64,
    /// Learning rate; its peak, where it changes.
    pub learning_rate: f64,
    /// How the learning rate changes. The paper's is constant.
    pub lr_scheduler: LrScheduler,
    /// Steps over which the learning rate rises from zero at the start.
    pub lr_warmup_steps: usize,
    /// Rank of the adapter.
    pub rank: usize,
    /// Numerator of the adapter's scale `alpha / rank`.
    pub alpha: f64,
    /// Layers that are adapted: those whose path ends in one of these.
    pub targets: Vec<String>,
    /// Decay rate of the mean of gradients (AdamW, arXiv 1711.05101).
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// Gradients are scaled down to this norm, taken over all of them together; 0 for never.
    pub max_grad_norm: f64,
    /// How pictures are resized, cut and mirrored; not at all by default. A batch has pictures of one size, so where there are several, each has batches of its own.
    pub geometry: GeometryConfig,
    /// In how many places a picture is cut that is cut at random: so many views of it are encoded, twice as many where pictures are mirrored.
    pub crops: NonZeroU64,
    /// How often samples of each data set are shown, in proportion: a weight for each. Without weights, all samples are shown equally often.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_weights: Vec<f64>,
    /// Weighs timesteps by their signal-to-noise ratio, cut off at this number (min-SNR, arXiv 2303.09556); none for the paper, 5 is usual elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snr_gamma: Option<f64>,
    /// Strength of a random number that is added to the noise of a whole channel; 0 for the paper, 0.05 to 0.1 is usual elsewhere.
    pub noise_offset: f64,
    /// Strength of the noise that is in the latents, but is not to be predicted (input perturbation, arXiv 2301.11706); 0 for the paper, 0.1 is usual elsewhere.
    pub input_perturbation: f64,
    /// How strongly the model is held to its reference, where it is trained on pairs ([`DiffusionDpo`](crate::DiffusionDpo)).
    pub dpo_beta: f64,
    /// Where a mixture is trained, whether its experts are trained with it, or only the weights that they get (the paper's better choice, table 5).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub train_experts: bool,
    /// Share of captions replaced by the empty one. The paper has none.
    pub caption_dropout: f64,
    /// Whether an image's latents are drawn anew from the VAE's distribution each time, as diffusers' script does, or are
    /// its mean. The mean is right for a UNet that was trained on it, where the distribution is wide.
    pub sample_latents: bool,
    /// Seed of the initial factors, the order of samples, noise, timesteps and dropped captions. Experts that are to be
    /// merged should share it, so that they share their initial factors.
    pub seed: u64,
}

fn is_single(dtype: &Dtype) -> bool {
    *dtype == Dtype::F32
}

fn is_usual_scale(scale: &f64) -> bool {
    *scale == LOSS_SCALE
}

impl Default for TrainConfig {
    fn default() -> Self {
        let targets = ["to_q", "to_k", "to_v", "to_out.0"];
        Self {
            steps: 5000,
            batch_size: 16,
            gradient_accumulation: 4,
            shards: 1,
            recompute: false,
            dtype: Dtype::F32,
            loss_scale: LOSS_SCALE,
            learning_rate: 3e-4,
            lr_scheduler: LrScheduler::Constant,
            lr_warmup_steps: 0,
            rank: 128,
            alpha: 128.0,
            targets: targets.map(str::to_owned).to_vec(),
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 1e-2,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            geometry: GeometryConfig::default(),
            crops: CROPS,
            data_weights: Vec::new(),
            snr_gamma: None,
            noise_offset: 0.0,
            input_perturbation: 0.0,
            dpo_beta: 5000.0,
            train_experts: false,
            caption_dropout: 0.0,
            sample_latents: true,
            seed: 42,
        }
    }
}

impl TrainConfig {
    /// The learning rate of a step, counted from 0.
    #[must_use]
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let factor = self
            .lr_scheduler
            .factor(step, self.lr_warmup_steps, self.steps);
        self.learning_rate * factor
    }

    /// Checks all settings before anything expensive starts.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for the first that cannot be used.
    pub fn validate(self) -> Result<ValidTrainConfig, TrainError> {
        let wrong = |field, expected: &str, found: String| TrainError::Setting {
            field,
            expected: expected.to_owned(),
            found,
        };
        for (field, value) in [
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("gradient_accumulation", self.gradient_accumulation),
            ("shards", self.shards),
            ("rank", self.rank),
        ] {
            if value == 0 {
                return Err(wrong(field, "at least 1", value.to_string()));
            }
        }
        if self.shards > self.batch_size {
            let expected = format!("at most the batch_size, {}", self.batch_size);
            return Err(wrong("shards", &expected, self.shards.to_string()));
        }
        for (field, value) in [
            ("learning_rate", self.learning_rate),
            ("epsilon", self.epsilon),
            ("alpha", self.alpha),
            ("dpo_beta", self.dpo_beta),
            ("snr_gamma", self.snr_gamma.unwrap_or(1.0)),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(wrong(field, "a positive number", value.to_string()));
            }
        }
        let scale = self.loss_scale;
        if !(1.0..=65536.0).contains(&scale) || scale.log2().fract() != 0.0 {
            let found = scale.to_string();
            return Err(wrong("loss_scale", "a power of two from 1 to 65536", found));
        }
        for (field, value) in [
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("noise_offset", self.noise_offset),
            ("input_perturbation", self.input_perturbation),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(wrong(field, "a number not below 0", value.to_string()));
            }
        }
        let unusable = |weight: &&f64| !(weight.is_finite() && **weight > 0.0);
        if let Some(weight) = self.data_weights.iter().find(unusable) {
            return Err(wrong(
                "data_weights",
                "positive numbers",
                weight.to_string(),
            ));
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(wrong(
                    field,
                    "a number from 0 to below 1",
                    value.to_string(),
                ));
            }
        }
        if !(0.0..=1.0).contains(&self.caption_dropout) {
            let found = self.caption_dropout.to_string();
            return Err(wrong("caption_dropout", "a share from 0 to 1", found));
        }
        self.geometry.validate()?;
        if self.targets.is_empty() || self.targets.iter().any(String::is_empty) {
            return Err(wrong(
                "targets",
                "names of layers",
                format!("{:?}", self.targets),
            ));
        }
        Ok(ValidTrainConfig(self))
    }
}

/// A [`TrainConfig`] that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidTrainConfig(TrainConfig);

impl ValidTrainConfig {
    /// These settings with others that cannot be wrong.
    pub(crate) fn with(&self, config: TrainConfig) -> Self {
        Self(config)
    }
}

impl std::ops::Deref for ValidTrainConfig {
    type Target = TrainConfig;

    fn deref(&self) -> &TrainConfig {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut TrainConfig);

    #[test]
    fn a_setting_that_cannot_be_used_is_named() {
        let cases: [(&str, Spoil); 12] = [
            ("steps", |config| config.steps = 0),
            ("shards", |config| config.shards = 17),
            ("rank", |config| config.rank = 0),
            ("learning_rate", |config| config.learning_rate = f64::NAN),
            ("loss_scale", |config| config.loss_scale = 1000.0),
            ("weight_decay", |config| config.weight_decay = -1.0),
            ("beta2", |config| config.beta2 = 1.0),
            ("snr_gamma", |config| config.snr_gamma = Some(0.0)),
            ("noise_offset", |config| config.noise_offset = f64::INFINITY),
            ("data_weights", |config| {
                config.data_weights = vec![1.0, 0.0]
            }),
            ("caption_dropout", |config| config.caption_dropout = 1.5),
            ("targets", |config| config.targets.clear()),
        ];
        for (field, spoil) in cases {
            let mut config = TrainConfig::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        TrainConfig::default().validate().unwrap();
    }
}
