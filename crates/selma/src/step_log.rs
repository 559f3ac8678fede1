//! What a training tells of its steps, on its way to the disk.

use std::path::Path;

use selma_durable::Journal;
use selma_train::Progress;
use serde::{Deserialize, Serialize};

use crate::{SelmaError, TensorBoardLog};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Optimizer steps done.
    pub step: usize,
    /// Loss of the step.
    pub loss: f32,
    /// Norm of all gradients before clipping.
    pub grad_norm: Option<f32>,
    /// Share of the pairs that the model gets right, where it is trained on pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f32>,
}

/// One line of `timing.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepTiming {
    /// Optimizer steps done.
    pub step: usize,
    /// How long the step took.
    pub seconds: f64,
    /// Of these, seconds of waiting for its data.
    pub waited: f64,
}

/// Lines of steps that a resumed training makes again are not written twice.
pub(crate) struct StepLog {
    metrics: Journal<Metrics>,
    timing: Option<Journal<StepTiming>>,
    tensorboard: Option<TensorBoardLog>,
    written: usize,
    pending: Vec<(Metrics, Option<StepTiming>)>,
}

impl StepLog {
    /// The log of a training's folder, which is at a step.
    pub(crate) fn open(folder: &Path, step: usize) -> Result<Self, SelmaError> {
        let (metrics, before) = Journal::<Metrics>::open(folder.join("metrics.jsonl"))?;
        let last = before.last().map_or(0, |metrics| metrics.step);
        Ok(Self {
            metrics,
            timing: None,
            tensorboard: None,
            written: last.max(step),
            pending: Vec::new(),
        })
    }

    /// Also writes `timing.jsonl`, which is different in every run.
    pub(crate) fn with_timing(mut self, folder: &Path) -> Result<Self, SelmaError> {
        self.timing = Some(Journal::open(folder.join("timing.jsonl"))?.0);
        Ok(self)
    }

    /// Also writes for `TensorBoard`.
    pub(crate) fn with_tensorboard(mut self, folder: &Path) -> Result<Self, SelmaError> {
        self.tensorboard = Some(TensorBoardLog::create(&folder.join("tensorboard"))?);
        Ok(self)
    }

    pub(crate) fn push(&mut self, progress: &Progress) {
        if progress.step <= self.written {
            return;
        }
        let metrics = Metrics {
            step: progress.step,
            loss: progress.loss,
            grad_norm: progress.grad_norm,
            accuracy: progress.accuracy,
        };
        let timing = progress.time.map(|time| StepTiming {
            step: progress.step,
            seconds: time.whole.as_secs_f64(),
            waited: time.waited.as_secs_f64(),
        });
        self.pending.push((metrics, timing));
    }

    pub(crate) fn write(&mut self) -> Result<(), SelmaError> {
        let (metrics, timing): (Vec<Metrics>, Vec<Option<StepTiming>>) =
            self.pending.drain(..).unzip();
        self.metrics.append_all(&metrics)?;
        if let Some(journal) = &mut self.timing {
            let timing: Vec<StepTiming> = timing.into_iter().flatten().collect();
            journal.append_all(&timing)?;
        }
        if let Some(log) = &mut self.tensorboard {
            for metrics in &metrics {
                let mut values = vec![("loss", metrics.loss)];
                values.extend(metrics.grad_norm.map(|norm| ("grad_norm", norm)));
                values.extend(metrics.accuracy.map(|share| ("accuracy", share)));
                log.push(metrics.step, &values)?;
            }
        }
        if let Some(last) = metrics.last() {
            self.written = last.step;
        }
        Ok(())
    }
}
