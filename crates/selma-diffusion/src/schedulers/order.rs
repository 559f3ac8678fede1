//! The order of the steps of a run.

use super::SchedulerError;
use super::error::same_length;

/// Remembers the step made last, so that steps out of order are refused.
#[derive(Debug, Clone, Default)]
pub(super) struct StepOrder {
    previous: Option<usize>,
}

impl StepOrder {
    /// Whether step `index` of `len` may be made now, with a model output and a sample of these lengths; remembers it if so.
    pub(super) fn advance(
        &mut self,
        index: usize,
        len: usize,
        model_output: &[f32],
        sample: &[f32],
    ) -> Result<(), SchedulerError> {
        check_index(index, len)?;
        same_length("model output", sample.len(), model_output.len())?;
        if let Some(previous) = self.previous
            && index != previous + 1
        {
            return Err(SchedulerError::StepOrder {
                previous,
                found: index,
            });
        }
        self.previous = Some(index);
        Ok(())
    }
}

/// Fails unless there is a step `index`.
pub(super) fn check_index(index: usize, len: usize) -> Result<(), SchedulerError> {
    if index < len {
        Ok(())
    } else {
        Err(SchedulerError::StepIndex { index, len })
    }
}

/// The entry of step `index`.
pub(super) fn entry<T: Copy>(table: &[T], index: usize) -> Result<T, SchedulerError> {
    let found = table.get(index).copied();
    found.ok_or(SchedulerError::StepIndex {
        index,
        len: table.len(),
    })
}

/// Timesteps as the model takes them.
pub(super) fn as_floats(timesteps: &[i64]) -> Vec<f64> {
    timesteps.iter().map(|t| *t as f64).collect()
}
