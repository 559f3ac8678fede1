//! `scheduler_config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PredictionType, SchedulerError, SchedulerKind};

/// How the betas grow over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly from `beta_start` to `beta_end`.
    Linear,
    /// The square roots grow evenly: latent diffusion's schedule.
    ScaledLinear,
    /// Glide's cosine schedule, each beta at most 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// How the inference timesteps are spread over the training timesteps: table 2 of arXiv 2305.08891.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of `num_train_timesteps / steps` from zero, plus `steps_offset`.
    Leading,
    /// Evenly from the first to the last training timestep, both included.
    Linspace,
    /// Multiples counted down from the last training timestep.
    Trailing,
}

/// The variance of the noise that DDPM adds after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// The posterior's variance (arXiv 2006.11239, formula 7).
    FixedSmall,
    /// The same by way of its logarithm, as arXiv 2205.09991 does.
    FixedSmallLog,
    /// The step's beta.
    FixedLarge,
    /// Not supported: diffusers takes the root of a logarithm here.
    FixedLargeLog,
    /// Not supported: the model predicts the variance.
    Learned,
    /// Not supported: the model predicts where between the two fixed variances it lies.
    LearnedRange,
}

/// The sigma after the last step of a sigma-based scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmasType {
    /// No noise is left.
    Zero,
    /// The smallest sigma of the training schedule is left.
    SigmaMin,
}

/// The fields of diffusers' `scheduler_config.json`, of all schedulers together.
///
/// A field that the file leaves out stays `None` and takes the default of the scheduler that is built, which need not be the one that the file names:
/// so the same file gives DDIM `leading` timesteps and Euler `linspace` ones, as `Scheduler.from_config` of diffusers does.
/// Unknown fields are ignored, because published files carry fields of other schedulers (SD 2's DDIM has `skip_prk_steps`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The diffusers class the file was written by, for example `PNDMScheduler`.
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Length of the training schedule. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    /// First beta. Default 0.0001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// Last beta. Default 0.02.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// Default `linear`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<BetaSchedule>,
    /// The betas themselves, in place of a schedule. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// Move the schedule so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1). Default false; PNDM ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    /// Default `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// Default `leading`; Euler's is `linspace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to `leading` timesteps. Default 0; Stable Diffusion has 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_offset: Option<usize>,
    /// Clamp the predicted clean sample. DDPM and DDIM; default true, and false in every latent model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample: Option<bool>,
    /// The bound of `clip_sample`. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample_range: Option<f64>,
    /// Dynamic thresholding, a pixel-space method. Default false; true is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    /// The last step ends at alpha 1 instead of the first training timestep's. DDIM's default is true, PNDM's false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    /// PNDM: start with the linear multistep method instead of Runge-Kutta. Default false; Stable Diffusion has true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
    /// DDPM. Default `fixed_small`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<VarianceType>,
    /// Euler: the sigmas of arXiv 2206.00364. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Euler: sigmas evenly spaced in their logarithm. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    /// Default false; true is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_beta_sigmas: Option<bool>,
    /// Euler: smallest Karras or exponential sigma. Default: that of the last inference timestep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Euler: largest Karras or exponential sigma. Default: that of the first inference timestep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Euler. Default `linear`; `log_linear` is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<String>,
    /// Euler. Default `discrete`; `continuous` is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<String>,
    /// Euler. Default `zero`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigmasType>,
}

impl SchedulerConfig {
    /// The schedule that Stable Diffusion 1.x and 2.x were trained with: `scaled_linear` from 0.00085 to 0.012 over 1000 timesteps, no clipping.
    #[must_use]
    pub fn stable_diffusion(prediction_type: PredictionType) -> Self {
        Self {
            num_train_timesteps: Some(1000),
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some(BetaSchedule::ScaledLinear),
            prediction_type: Some(prediction_type),
            steps_offset: Some(1),
            clip_sample: Some(false),
            set_alpha_to_one: Some(false),
            skip_prk_steps: Some(true),
            ..Self::default()
        }
    }

    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON, or a known field has a value of the wrong type or name.
    pub fn load(path: &Path) -> Result<Self, SchedulerError> {
        let text = std::fs::read_to_string(path).map_err(|source| SchedulerError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_str(&text).map_err(|source| SchedulerError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// The scheduler that `_class_name` names, if there is one and it is implemented.
    ///
    /// # Errors
    /// [`SchedulerError::UnknownKind`] when the field is missing or names another class.
    pub fn kind(&self) -> Result<SchedulerKind, SchedulerError> {
        SchedulerKind::from_class_name(self.class_name.as_deref().unwrap_or_default())
    }

    /// `num_train_timesteps`, or its default.
    #[must_use]
    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    /// `prediction_type`, or its default.
    #[must_use]
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type.unwrap_or(PredictionType::Epsilon)
    }

    /// The bound that the predicted clean sample is clamped to, if it is.
    pub(super) fn clip_range(&self) -> Option<f64> {
        self.clip_sample
            .unwrap_or(true)
            .then(|| self.clip_sample_range.unwrap_or(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_fields_and_nulls_of_published_files_are_accepted() {
        let json = r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_schedule": "scaled_linear",
            "skip_prk_steps": true, "trained_betas": null, "solver_order": 2}"#;
        let config: SchedulerConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.kind().unwrap(), SchedulerKind::Ddim);
        assert_eq!(config.skip_prk_steps, Some(true));
        assert_eq!(config.trained_betas, None);
        assert_eq!(config.prediction_type(), PredictionType::Epsilon);
    }

    #[test]
    fn wrong_values_are_refused_with_the_names_that_exist() {
        let error = serde_json::from_str::<SchedulerConfig>(r#"{"beta_schedule": "quadratic"}"#)
            .unwrap_err();
        assert!(error.to_string().contains("squaredcos_cap_v2"), "{error}");
        let error = serde_json::from_str::<SchedulerConfig>(r#"{"steps_offset": -1}"#).unwrap_err();
        assert!(error.to_string().contains("-1"), "{error}");
    }

    #[test]
    fn writing_and_reading_gives_the_same_configuration() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::VPrediction);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<SchedulerConfig>(&json).unwrap(),
            config
        );
        assert!(!json.contains("null"), "{json}");
    }

    #[test]
    fn a_file_that_is_missing_or_torn_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        let error = SchedulerConfig::load(&path).unwrap_err();
        assert!(matches!(&error, SchedulerError::Read { path: p, .. } if *p == path));
        std::fs::write(&path, r#"{"beta_start": 0.0"#).unwrap();
        let error = SchedulerConfig::load(&path).unwrap_err();
        assert!(
            error.to_string().contains("scheduler_config.json"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_class_is_named() {
        let config = SchedulerConfig {
            class_name: Some("FlowMatchEulerDiscreteScheduler".into()),
            ..SchedulerConfig::default()
        };
        let error = config.kind().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("FlowMatchEulerDiscreteScheduler"),
            "{error}"
        );
    }
}
