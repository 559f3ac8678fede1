//! The log of a pretraining.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use selma_durable::{read_jsonl, write_jsonl};
use selma_train::{Progress, TrainError};
use serde::{Deserialize, Serialize};

use super::PretrainStage;
use crate::SelmaError;

/// Steps of which one line tells the mean. Checkpoints are a multiple of it apart, so that a line is never of steps
/// before and after an interruption.
pub(super) const EVERY: usize = 50;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    stage: PretrainStage,
    step: usize,
    /// Mean of the steps since the line before.
    loss: f64,
    learning_rate: f64,
}

/// A file with the mean loss of every fifty steps.
pub(super) struct Log {
    path: PathBuf,
    sum: f64,
    count: usize,
    failure: Option<SelmaError>,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            sum: 0.0,
            count: 0,
            failure: None,
        }
    }

    /// Takes note of a step; asks to stop if a line cannot be written.
    pub(super) fn push(&mut self, stage: PretrainStage, progress: Progress) -> ControlFlow<()> {
        self.sum += f64::from(progress.loss);
        self.count += 1;
        if !progress.step.is_multiple_of(EVERY) && progress.step != progress.steps {
            return ControlFlow::Continue(());
        }
        let line = Line {
            stage,
            step: progress.step,
            loss: self.sum / self.count as f64,
            learning_rate: progress.learning_rate,
        };
        (self.sum, self.count) = (0.0, 0);
        match write(&self.path, line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// What a training gave, or why the log had it stopped.
    pub(super) fn checked<T>(&mut self, result: Result<T, TrainError>) -> Result<T, SelmaError> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => result.map_err(|error| match error {
                TrainError::Cancelled { .. } => SelmaError::Cancelled,
                other => other.into(),
            }),
        }
    }
}

/// Adds a line, in the place of those that an interrupted training wrote of steps that are done again.
fn write(path: &Path, line: Line) -> Result<(), SelmaError> {
    let mut lines: Vec<Line> = if path.is_file() {
        read_jsonl(path)?
    } else {
        Vec::new()
    };
    lines.retain(|old| old.stage != line.stage || old.step < line.step);
    lines.push(line);
    Ok(write_jsonl(path, &lines)?)
}
