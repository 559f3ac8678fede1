//! The schedulers by their names.

use std::fmt;
use std::str::FromStr;

use super::{
    AlgorithmType, Ddim, Ddpm, DpmSolverMultistep, Euler, EulerAncestral, Heun, Lcm, Lms, Pndm,
    Scheduler, SchedulerConfig, SchedulerError, UniPc,
};

/// The schedulers there are. A name decides only what it says; everything else is read from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerKind {
    /// [`Ddpm`]
    Ddpm,
    /// [`Ddim`]
    Ddim,
    /// [`Pndm`]
    Pndm,
    /// [`Euler`]
    Euler,
    /// [`Euler`] with Karras sigmas
    EulerKarras,
    /// [`EulerAncestral`]
    EulerAncestral,
    /// [`Heun`]
    Heun,
    /// [`Lms`]
    Lms,
    /// [`DpmSolverMultistep`]
    Dpmpp2m,
    /// [`DpmSolverMultistep`] with Karras sigmas
    Dpmpp2mKarras,
    /// [`DpmSolverMultistep`] with fresh noise after every step
    Dpmpp2mSde,
    /// [`UniPc`]
    UniPc,
    /// [`Lcm`]
    Lcm,
}

impl SchedulerKind {
    /// Every kind, in the order of the documentation. Of several with the same class the first is the class as it is.
    pub const ALL: [Self; 13] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Euler,
        Self::EulerKarras,
        Self::EulerAncestral,
        Self::Heun,
        Self::Lms,
        Self::Dpmpp2m,
        Self::Dpmpp2mKarras,
        Self::Dpmpp2mSde,
        Self::UniPc,
        Self::Lcm,
    ];

    /// The short name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// The class of diffusers, as in `scheduler_config.json` and `model_index.json`.
    #[must_use]
    pub const fn class_name(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Ddpm => ("ddpm", "DDPMScheduler"),
            Self::Ddim => ("ddim", "DDIMScheduler"),
            Self::Pndm => ("pndm", "PNDMScheduler"),
            Self::Euler => ("euler", "EulerDiscreteScheduler"),
            Self::EulerKarras => ("euler_karras", "EulerDiscreteScheduler"),
            Self::EulerAncestral => ("euler_a", "EulerAncestralDiscreteScheduler"),
            Self::Heun => ("heun", "HeunDiscreteScheduler"),
            Self::Lms => ("lms", "LMSDiscreteScheduler"),
            Self::Dpmpp2m => ("dpmpp_2m", "DPMSolverMultistepScheduler"),
            Self::Dpmpp2mKarras => ("dpmpp_2m_karras", "DPMSolverMultistepScheduler"),
            Self::Dpmpp2mSde => ("dpmpp_2m_sde", "DPMSolverMultistepScheduler"),
            Self::UniPc => ("unipc", "UniPCMultistepScheduler"),
            Self::Lcm => ("lcm", "LCMScheduler"),
        }
    }

    /// The kind that a class of diffusers is.
    ///
    /// # Errors
    /// [`SchedulerError::UnknownKind`] for any other class.
    pub fn from_class_name(name: &str) -> Result<Self, SchedulerError> {
        find(name, Self::class_name)
    }

    /// The configuration with what the name says, which a scheduler of this kind is built from.
    #[must_use]
    pub fn applied_to(self, config: &SchedulerConfig) -> SchedulerConfig {
        let mut config = config.clone();
        if let Self::EulerKarras | Self::Dpmpp2mKarras = self {
            config.use_karras_sigmas = Some(true);
            config.use_exponential_sigmas = Some(false);
        }
        match self {
            Self::Dpmpp2m | Self::Dpmpp2mKarras => {
                config.algorithm_type = Some(AlgorithmType::DpmSolverPlusPlus);
            }
            Self::Dpmpp2mSde => {
                config.algorithm_type = Some(AlgorithmType::SdeDpmSolverPlusPlus);
            }
            _ => {}
        }
        config
    }
}

fn find(
    name: &str,
    of: impl Fn(SchedulerKind) -> &'static str,
) -> Result<SchedulerKind, SchedulerError> {
    let found = SchedulerKind::ALL
        .into_iter()
        .find(|kind| of(*kind) == name);
    found.ok_or_else(|| {
        let mut names = SchedulerKind::ALL.map(&of).to_vec();
        names.dedup();
        SchedulerError::UnknownKind {
            name: name.to_owned(),
            expected: names.join(", "),
        }
    })
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = SchedulerError;

    fn from_str(name: &str) -> Result<Self, SchedulerError> {
        find(name, Self::name)
    }
}

/// A scheduler ready for a run of `num_inference_steps` steps. `kind` need not be the class that wrote the configuration.
///
/// # Errors
/// The number of steps does not fit the schedule, or a field is out of range or not supported by this kind.
pub fn build(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    config.located(of_kind(kind, &kind.applied_to(config), num_inference_steps))
}

/// The same with noise after every step, which `ddim` alone knows: `eta` 0 adds none, 1 that of DDPM (see [`Ddim::with_eta`]).
///
/// # Errors
/// Those of [`build`]; `eta` is not between 0 and 1, or not 0 for another scheduler.
pub fn build_with_eta(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    num_inference_steps: usize,
    eta: f64,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    if eta == 0.0 {
        return build(kind, config, num_inference_steps);
    }
    if kind != SchedulerKind::Ddim {
        return Err(SchedulerError::Unsupported {
            scheduler: kind.name(),
            field: "eta",
            found: eta.to_string(),
        });
    }
    let ddim = config.located(Ddim::new(config, num_inference_steps))?;
    Ok(Box::new(ddim.with_eta(eta)?))
}

/// A scheduler of a configuration that says what the kind's name says.
fn of_kind(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    steps: usize,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    Ok(match kind {
        SchedulerKind::Ddpm => Box::new(Ddpm::new(config, steps)?),
        SchedulerKind::Ddim => Box::new(Ddim::new(config, steps)?),
        SchedulerKind::Pndm => Box::new(Pndm::new(config, steps)?),
        SchedulerKind::Euler | SchedulerKind::EulerKarras => Box::new(Euler::new(config, steps)?),
        SchedulerKind::EulerAncestral => Box::new(EulerAncestral::new(config, steps)?),
        SchedulerKind::Heun => Box::new(Heun::new(config, steps)?),
        SchedulerKind::Lms => Box::new(Lms::new(config, steps)?),
        SchedulerKind::Dpmpp2m | SchedulerKind::Dpmpp2mKarras | SchedulerKind::Dpmpp2mSde => {
            Box::new(DpmSolverMultistep::new(config, steps)?)
        }
        SchedulerKind::UniPc => Box::new(UniPc::new(config, steps)?),
        SchedulerKind::Lcm => Box::new(Lcm::new(config, steps)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::PredictionType;

    #[test]
    fn names_lead_back_to_the_kind() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
            let of_class = SchedulerKind::from_class_name(kind.class_name()).unwrap();
            assert_eq!(of_class.class_name(), kind.class_name());
            // A name with more to it than its class begins with that of the class.
            assert!(kind.name().starts_with(of_class.name()), "{kind}");
        }
        let error = "dddim".parse::<SchedulerKind>().unwrap_err().to_string();
        let names = "ddpm, ddim, pndm, euler, euler_karras, euler_a, heun, lms, dpmpp_2m, \
            dpmpp_2m_karras, dpmpp_2m_sde, unipc, lcm";
        assert!(error.contains("dddim") && error.contains(names), "{error}");
        let error = SchedulerKind::from_class_name("Ddim").unwrap_err();
        let classes = "PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler";
        assert!(error.to_string().contains(classes), "{error}");
    }

    #[test]
    fn eta_is_for_ddim_alone() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for kind in SchedulerKind::ALL {
            build_with_eta(kind, &config, 10, 0.0).unwrap();
            match build_with_eta(kind, &config, 10, 0.5) {
                Ok(_) => assert_eq!(kind, SchedulerKind::Ddim),
                Err(error) => {
                    assert_ne!(kind, SchedulerKind::Ddim);
                    let error = error.to_string();
                    assert!(
                        error.contains(kind.name()) && error.contains("eta"),
                        "{error}"
                    );
                }
            }
        }
        assert!(build_with_eta(SchedulerKind::Ddim, &config, 10, f64::NAN).is_err());
    }

    #[test]
    fn names_say_which_sigmas_and_whether_there_is_noise() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let sigmas = |kind| build(kind, &config, 10).unwrap().plan().sigmas().to_vec();
        assert_ne!(
            sigmas(SchedulerKind::Euler),
            sigmas(SchedulerKind::EulerKarras)
        );
        assert_ne!(
            sigmas(SchedulerKind::Dpmpp2m),
            sigmas(SchedulerKind::Dpmpp2mKarras)
        );
        let stochastic = SchedulerConfig {
            algorithm_type: Some(AlgorithmType::SdeDpmSolverPlusPlus),
            ..config.clone()
        };
        for (kind, expected) in [(SchedulerKind::Dpmpp2m, 0), (SchedulerKind::Dpmpp2mSde, 1)] {
            let (mut draws, mut sample) = (0, [0.5_f32]);
            build(kind, &stochastic, 10)
                .unwrap()
                .step(&[0.1], 0, &mut sample, &mut |_| draws += 1)
                .unwrap();
            assert_eq!(draws, expected, "{kind}");
        }
    }
}
