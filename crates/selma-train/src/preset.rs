//! Settings that were published.

use std::str::FromStr;

use crate::{TrainConfig, TrainError};

/// Published settings of trainings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainPreset {
    /// SELMA's for Stable Diffusion 1.4, by the paper (appendix H) and by its script: 5,000 steps of 64 samples.
    Sd14,
    /// SELMA's for Stable Diffusion 2, by the paper; no script was published for it.
    Sd2,
    /// SELMA's for SDXL, by the paper: those of the others. The published script has 10,000 steps of 32 samples (4 a pass, 8 passes a step).
    Sdxl,
}

impl TrainPreset {
    /// The names that can be parsed.
    pub const NAMES: [&str; 3] = ["sd14", "sd2", "sdxl"];

    /// The settings. Passes are as large as the paper's GPU held; `batch_size` and `gradient_accumulation` can be changed together.
    #[must_use]
    pub fn config(self) -> TrainConfig {
        let (batch_size, gradient_accumulation) = match self {
            Self::Sd14 | Self::Sd2 => (16, 4),
            Self::Sdxl => (4, 16),
        };
        TrainConfig {
            batch_size,
            gradient_accumulation,
            recompute: true,
            ..TrainConfig::default()
        }
    }
}

impl FromStr for TrainPreset {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        match name {
            "sd14" => Ok(Self::Sd14),
            "sd2" => Ok(Self::Sd2),
            "sdxl" => Ok(Self::Sdxl),
            other => Err(TrainError::Setting {
                field: "preset",
                expected: format!("one of {}", Self::NAMES.join(", ")),
                found: other.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_the_papers_5000_steps_of_64_at_rank_128() {
        for name in TrainPreset::NAMES {
            let config = name.parse::<TrainPreset>().unwrap().config();
            assert_eq!(config.batch_size * config.gradient_accumulation, 64);
            assert_eq!(
                (config.steps, config.rank, config.alpha),
                (5000, 128, 128.0)
            );
            assert_eq!((config.learning_rate, config.caption_dropout), (3e-4, 0.0));
            assert_eq!(config.snr_gamma, None);
            config.validate().unwrap();
        }
        assert!("sd3".parse::<TrainPreset>().is_err());
    }
}
