//! What a training tells its observer.

use std::ops::ControlFlow;
use std::time::Duration;

/// One finished optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Loss of the step: the mean over its samples.
    pub loss: f32,
    /// Share of the samples that the model gets right, where the objective knows right and wrong.
    pub accuracy: Option<f32>,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Norm of all gradients together before clipping, where it is measured.
    pub grad_norm: Option<f32>,
    /// How long the step took, where it is measured.
    pub time: Option<StepTime>,
}

/// How long a step took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTime {
    /// In all.
    pub whole: Duration,
    /// Of that, for its data to be there.
    pub waited: Duration,
}

/// Receives progress and may stop the training by [`ControlFlow::Break`].
pub type Observer<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;
