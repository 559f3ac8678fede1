//! What a training minimises: a file for each objective.

mod denoising;
mod dpo;

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use crate::{Denoiser, TrainError};

pub use denoising::{Batch, Denoising};
pub use dpo::{DiffusionDpo, PairBatch};

/// A loss over batches of one kind.
pub trait Objective: Sync {
    /// What a loss is computed from.
    type Batch: Samples;

    /// The loss of a batch, which asks the model for predictions.
    ///
    /// # Errors
    ///
    /// If the batch does not fit the objective or the model.
    fn loss(&self, model: &Denoiser<'_>, batch: &Self::Batch) -> Result<Loss, TrainError>;
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The mean over the samples, `[1]`.
    pub value: Tensor<1>,
    /// The share of the samples that the model gets right, `[1]`, where the objective knows right and wrong.
    pub accuracy: Option<Tensor<1>>,
}

impl Loss {
    /// A loss that knows no right and wrong.
    #[must_use]
    pub fn new(value: Tensor<1>) -> Self {
        Self {
            value,
            accuracy: None,
        }
    }
}

/// Samples of one forward pass, which can be cut into parts.
pub trait Samples: Send + Sync {
    /// How many there are. A pair is one.
    fn count(&self) -> usize;

    /// Those of a range.
    #[must_use]
    fn slice(&self, range: Range<usize>) -> Self;

    /// The same on another device.
    #[must_use]
    fn to_device(self, device: &Device) -> Self;
}

/// The numbers of a range of a list.
fn sliced(all: &[usize], range: &Range<usize>) -> Vec<usize> {
    let rest = all.iter().skip(range.start);
    rest.take(range.len()).copied().collect()
}
