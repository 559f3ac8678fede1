//! What a training tells its observer.

use std::ops::ControlFlow;

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
}

/// Receives progress and may stop the training by [`ControlFlow::Break`].
pub type Observer<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;
