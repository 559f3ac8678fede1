//! Losses on data that is not trained on, and the choice of a checkpoint by them.

use std::path::Path;
use std::str::FromStr;

use selma_durable::Journal;
use serde::{Deserialize, Serialize};

use crate::{Expert, SelmaError, TrainingData};

/// Which of a training's checkpoints becomes its adapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The last step.
    #[default]
    Last,
    /// The step with the smallest loss on the validation data, of equal ones the first.
    Best,
}

impl Pick {
    /// The names that can be parsed, which are those in files.
    pub const NAMES: [&str; 2] = ["last", "best"];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

impl FromStr for Pick {
    type Err = SelmaError;

    fn from_str(name: &str) -> Result<Self, SelmaError> {
        match name {
            "last" => Ok(Self::Last),
            "best" => Ok(Self::Best),
            other => Err(SelmaError::Setting {
                field: "pick".to_owned(),
                expected: Self::NAMES.join(" or "),
                found: other.to_owned(),
            }),
        }
    }
}

/// What a training is watched by, and which of its checkpoints is taken.
#[derive(Debug, Clone, Copy)]
pub struct Validation<'a> {
    /// Data of the kind that is trained on, encoded with the settings of [`for_validation`](selma_train::ValidTrainConfig::for_validation).
    pub data: &'a TrainingData,
    /// The checkpoint that becomes the adapter.
    pub pick: Pick,
}

/// One line of `validation.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationLoss {
    /// Optimizer steps done.
    pub step: usize,
    /// Mean loss on the validation data.
    pub loss: f32,
}

/// The losses of a training so far. A step that a resumed training comes to again is not written twice.
pub(crate) struct ValidationLog {
    journal: Journal<ValidationLoss>,
    losses: Vec<ValidationLoss>,
}

impl ValidationLog {
    /// The log in a training's folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, SelmaError> {
        let (journal, losses) = Journal::open(folder.join(Expert::VALIDATION))?;
        Ok(Self { journal, losses })
    }

    pub(crate) fn has(&self, step: usize) -> bool {
        self.losses.iter().any(|known| known.step == step)
    }

    pub(crate) fn push(&mut self, step: usize, loss: f32) -> Result<(), SelmaError> {
        let loss = ValidationLoss { step, loss };
        self.journal.append(&loss)?;
        self.losses.push(loss);
        Ok(())
    }

    /// The step up to `step` with the smallest loss, of equal ones the first.
    pub(crate) fn best(&self, step: usize) -> Option<ValidationLoss> {
        let known = self.losses.iter().filter(|known| known.step <= step);
        let best = known.min_by(|a, b| a.loss.total_cmp(&b.loss).then(a.step.cmp(&b.step)));
        best.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_first_of_the_smallest_up_to_a_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = ValidationLog::open(folder.path()).unwrap();
        assert_eq!(log.best(9), None);
        for (step, loss) in [(2, 0.5), (4, 0.25), (6, 0.25), (8, 0.125)] {
            log.push(step, loss).unwrap();
        }
        drop(log);
        let log = ValidationLog::open(folder.path()).unwrap();
        assert!(log.has(6) && !log.has(7));
        let step = |until| log.best(until).map(|best| best.step);
        assert_eq!([1, 3, 7, 8].map(step), [None, Some(2), Some(4), Some(8)]);
    }

    #[test]
    fn names_are_parsed_and_others_refused() {
        for pick in [Pick::Last, Pick::Best] {
            assert_eq!(pick.name().parse::<Pick>().unwrap(), pick);
        }
        let error = "first".parse::<Pick>().unwrap_err().to_string();
        assert!(error.contains("last or best"), "{error}");
    }
}
