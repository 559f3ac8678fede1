//! The order of the steps of a run.

use super::error::same_length;
use super::{Plan, SchedulerError};

/// Remembers the step made last, so that steps out of order are refused.
#[derive(Debug, Clone, Default)]
pub(super) struct StepOrder {
    /// The index of the step made last, and the length of its sample.
    previous: Option<(usize, usize)>,
}

impl StepOrder {
    /// Whether step `index` of the plan may be made now, with a model output and a sample of these lengths; remembers it if so.
    pub(super) fn advance(
        &mut self,
        plan: &Plan,
        index: usize,
        model_output: &[f32],
        sample: &[f32],
    ) -> Result<(), SchedulerError> {
        check_index(index, plan.timesteps().len())?;
        same_length("model output", sample.len(), model_output.len())?;
        if let Some((previous, length)) = self.previous {
            same_length("sample", length, sample.len())?;
            if index != previous + 1 {
                return Err(SchedulerError::StepOrder {
                    previous,
                    found: index,
                });
            }
        }
        self.previous = Some((index, sample.len()));
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
