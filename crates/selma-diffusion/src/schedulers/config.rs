//! `scheduler_config.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Which of the equations DPM-Solver solves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlgorithmType {
    /// The probability flow, by the clean sample (arXiv 2211.01095).
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
    /// The diffusion equation, by the clean sample: with fresh noise.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
    /// Not supported: the probability flow, by the noise (arXiv 2206.00927).
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    /// Not supported: the diffusion equation, by the noise.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
    /// In files of the DEIS scheduler, where diffusers' DPM-Solver reads it as `dpmsolver++`.
    #[serde(rename = "deis")]
    Deis,
}

/// A variant of a multistep solver. A scheduler that does not know the one given takes its default, as in diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// DPM-Solver's default: the slope in the middle of the step.
    Midpoint,
    /// DPM-Solver: the slope integrated over the step.
    Heun,
    /// UniPC: `B(h) = h`.
    Bh1,
    /// UniPC's default: `B(h) = exp(h) - 1`.
    Bh2,
    /// In files of the DEIS scheduler.
    Logrho,
}

/// The fields of diffusers' `scheduler_config.json`, of all schedulers together.
///
/// A field that the file leaves out stays `None` and takes the default of the scheduler that is built, which need not be the one that the file names:
/// so the same file gives DDIM `leading` timesteps and Euler `linspace` ones, as `Scheduler.from_config` of diffusers does.
/// Unknown fields are ignored, because published files carry fields of other schedulers (SD 2's DDIM has `skip_prk_steps`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The file that it was read from, which errors name. Not a field of the file; a configuration that is changed by [`with`](Self::with) has none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The diffusers class the file was written by, for example `PNDMScheduler`.
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Length of the training schedule. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    /// First beta. Default 0.0001; Heun's and LCM's is 0.00085.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// Last beta. Default 0.02; Heun's and LCM's is 0.012.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// Default `linear`; LCM's is `scaled_linear`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<BetaSchedule>,
    /// The betas themselves, in place of a schedule. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// Move the schedule so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1). Default false; PNDM, Heun and LMS ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    /// Default `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// Default `leading` for DDPM, DDIM and PNDM, `linspace` for the others; LCM ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to `leading` timesteps. Default 0; Stable Diffusion has 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_offset: Option<usize>,
    /// Clamp the predicted clean sample. DDPM, DDIM (default true, and false in every latent model), Heun, LCM (default false).
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
    /// The sigmas of arXiv 2206.00364. Euler, Heun, LMS, DPM-Solver, UniPC; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Sigmas evenly spaced in their logarithm. The same schedulers; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    /// Default false; true is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_beta_sigmas: Option<bool>,
    /// Smallest Karras or exponential sigma. Default: that of the last inference timestep, or of the first training timestep in DPM-Solver and UniPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Largest Karras or exponential sigma. Default: that of the first inference timestep, or of the last training timestep in DPM-Solver and UniPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Euler. Default `linear`; `log_linear` is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<String>,
    /// Euler. Default `discrete`; `continuous` is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<String>,
    /// Euler, DPM-Solver, UniPC. Default `zero`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigmasType>,
    /// DPM-Solver, UniPC: the order, 1 to 3. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    /// DPM-Solver. Default `dpmsolver++`; the name of the scheduler decides between the two that are supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm_type: Option<AlgorithmType>,
    /// DPM-Solver's default is `midpoint`, UniPC's `bh2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<SolverType>,
    /// DPM-Solver, UniPC: lower the order towards the end of a run (DPM-Solver: of one below 15 steps). Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    /// DPM-Solver: the last step is of first order in longer runs, too. Default false; `final_sigmas_type` `zero` implies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    /// DPM-Solver: leave out training timesteps whose log-SNR is below. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda_min_clipped: Option<f64>,
    /// DPM-Solver. Default false; true is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    /// DPM-Solver, UniPC. Default false; true is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
    /// UniPC: work with the clean sample. Default true; false is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict_x0: Option<bool>,
    /// UniPC: another scheduler for the predictor. Default none; any is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_p: Option<Value>,
    /// UniPC: steps whose result is not corrected. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_corrector: Option<Vec<usize>>,
    /// LCM: steps of the distillation, of which a run takes some. Default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_inference_steps: Option<usize>,
    /// LCM: factor of the timestep in the boundary condition. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_scaling: Option<f64>,
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
        // Python writes the default of lambda_min_clipped in a way that JSON does not know.
        let text = text.replace("-Infinity", "null");
        let config: Self = serde_json::from_str(&text).map_err(|source| SchedulerError::Parse {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file: Some(path.to_owned()),
            ..config
        })
    }

    /// The scheduler that `_class_name` names, if there is one and it is implemented; where `algorithm_type` decides between two, both together.
    ///
    /// # Errors
    /// [`SchedulerError::NotImplemented`] when the field is missing or names another class, and for an `algorithm_type` that is not implemented.
    pub fn kind(&self) -> Result<SchedulerKind, SchedulerError> {
        let class = self.class_name.as_deref();
        let kind = class.and_then(|class| SchedulerKind::from_class_name(class).ok());
        let scheduler = match (kind, self.algorithm_type) {
            (Some(SchedulerKind::Dpmpp2m), Some(AlgorithmType::SdeDpmSolverPlusPlus)) => {
                return Ok(SchedulerKind::Dpmpp2mSde);
            }
            (
                Some(kind @ SchedulerKind::Dpmpp2m),
                Some(algorithm @ (AlgorithmType::DpmSolver | AlgorithmType::SdeDpmSolver)),
            ) => format!("{} with algorithm_type {algorithm:?}", kind.class_name()),
            (Some(kind), _) => return Ok(kind),
            (None, _) => class
                .unwrap_or("a scheduler without _class_name")
                .to_owned(),
        };
        let others = SchedulerKind::ALL.map(SchedulerKind::name).join(", ");
        self.located(Err(SchedulerError::NotImplemented { scheduler, others }))
    }

    /// A result whose error names the file that the configuration was read from.
    pub(super) fn located<T>(
        &self,
        result: Result<T, SchedulerError>,
    ) -> Result<T, SchedulerError> {
        result.map_err(|error| match &self.file {
            Some(path) => error.in_file(path),
            None => error,
        })
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

    /// The bound that the predicted clean sample is clamped to, if it is; `default` is the scheduler's own.
    ///
    /// # Errors
    /// [`SchedulerError::InvalidField`] for a bound that is no positive number.
    pub(super) fn clip_range(&self, default: bool) -> Result<Option<f64>, SchedulerError> {
        if !self.clip_sample.unwrap_or(default) {
            return Ok(None);
        }
        let range = self.clip_sample_range.unwrap_or(1.0);
        if range > 0.0 && range.is_finite() {
            return Ok(Some(range));
        }
        Err(SchedulerError::InvalidField {
            field: "clip_sample_range",
            found: range.to_string(),
            expected: "a positive number".to_owned(),
        })
    }

    /// `solver_order`, or its default.
    pub(super) fn solver_order(&self) -> Result<usize, SchedulerError> {
        match self.solver_order.unwrap_or(2) {
            order @ 1..=3 => Ok(order),
            other => Err(SchedulerError::InvalidField {
                field: "solver_order",
                found: other.to_string(),
                expected: "1 to 3".to_owned(),
            }),
        }
    }

    /// For schedulers whose betas have other defaults.
    pub(super) fn with_default_betas(
        mut self,
        start: f64,
        end: f64,
        schedule: Option<BetaSchedule>,
    ) -> Self {
        self.beta_start = self.beta_start.or(Some(start));
        self.beta_end = self.beta_end.or(Some(end));
        self.beta_schedule = self.beta_schedule.or(schedule);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::build;

    #[test]
    fn a_bound_that_cannot_clip_is_refused_where_there_is_clipping() {
        for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut config = SchedulerConfig {
                clip_sample: Some(true),
                clip_sample_range: Some(range),
                ..SchedulerConfig::default()
            };
            for kind in [
                SchedulerKind::Ddpm,
                SchedulerKind::Ddim,
                SchedulerKind::Heun,
                SchedulerKind::Lcm,
            ] {
                let error = build(kind, &config, 4).unwrap_err().to_string();
                assert!(error.contains("clip_sample_range"), "{kind}: {error}");
            }
            config.clip_sample = Some(false);
            build(SchedulerKind::Ddim, &config, 4).unwrap();
        }
    }

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
    fn the_infinity_that_python_writes_is_no_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        let json = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
            "algorithm_type": "sde-dpmsolver++"}"#;
        std::fs::write(&path, json).unwrap();
        let config = SchedulerConfig::load(&path).unwrap();
        assert_eq!(config.lambda_min_clipped, None);
        assert_eq!(config.kind().unwrap(), SchedulerKind::Dpmpp2mSde);
        let config = SchedulerConfig {
            algorithm_type: Some(AlgorithmType::DpmSolver),
            ..config
        };
        let error = config.kind().unwrap_err();
        assert!(error.to_string().contains("algorithm_type"), "{error}");
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
    fn what_is_wrong_in_a_file_is_said_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        let file = path.display().to_string();
        let load = |json: &str| {
            std::fs::write(&path, json).unwrap();
            SchedulerConfig::load(&path).unwrap()
        };
        let config = load(r#"{"_class_name": "DEISMultistepScheduler", "beta_start": 0}"#);
        let error = config.kind().unwrap_err().to_string();
        for part in [&file, "DEISMultistepScheduler", "--scheduler NAME", "ddim"] {
            assert!(error.contains(part), "{error}");
        }
        let ddim = |config: &SchedulerConfig| {
            let error = build(SchedulerKind::Ddim, config, 4).unwrap_err();
            error.to_string()
        };
        let error = ddim(&config);
        assert!(
            error.contains(&file) && error.contains("beta_start"),
            "{error}"
        );
        // What is set by hand is not the file's fault.
        let set = config.with("beta_end", &2.into()).unwrap();
        assert!(!ddim(&set).contains(&file));
        let nested = load(r#"{"solver_p": {"_class_name": "DDIMScheduler"}}"#);
        let error = build(SchedulerKind::UniPc, &nested, 4).unwrap_err();
        assert!(error.to_string().contains("solver_p"), "{error}");
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
