//! Where a training gets its batches from.

use burn::tensor::Device;
use selma_diffusion::models::UNet2DConditionModel;

use crate::{TrainError, ValidTrainConfig};

/// A batch that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Settings of the training: its seed and batch size among them.
    pub config: &'a ValidTrainConfig,
    /// Forward passes since the start of the training.
    pub pass: usize,
    /// Timesteps of the model's training.
    pub timesteps: usize,
    /// Where the batch is wanted.
    pub device: &'a Device,
}

impl Draw<'_> {
    /// Number of the batch's first sample since the start of the training.
    #[must_use]
    pub fn position(&self) -> usize {
        self.pass * self.config.batch_size
    }
}

/// A batch, and what it was made of.
#[derive(Debug, Clone)]
pub struct Drawn<B> {
    /// `batch_size` samples.
    pub batch: B,
    /// Their numbers in the data, for messages.
    pub samples: Vec<usize>,
}

/// Batches that do not depend on the network, so that they can be made ahead ([`Prefetch`](crate::Prefetch)).
///
/// What is made depends on the seed and on the number of the pass alone, so that a resumed training sees what an uninterrupted one would have seen.
pub trait Source<B>: Sync {
    /// Makes a batch.
    ///
    /// # Errors
    ///
    /// If data cannot be read or made.
    fn make(&self, draw: &Draw<'_>) -> Result<Drawn<B>, TrainError>;
}

/// Batches of one kind, when the training asks for them.
pub trait Feed<B> {
    /// Gives a batch; `unet` is the network as it stands, for data that it makes itself.
    ///
    /// # Errors
    ///
    /// If data cannot be read or made.
    fn draw(&self, draw: &Draw<'_>, unet: &UNet2DConditionModel) -> Result<Drawn<B>, TrainError>;
}
