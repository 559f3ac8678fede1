//! What can go wrong in this crate.

use std::path::PathBuf;

use selma_dataset::DatasetError;
use selma_diffusion::DiffusionError;
use selma_diffusion::config::ConfigError;
use selma_durable::DurableError;
use selma_lora::LoraError;
use thiserror::Error;

/// An error of training.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A file cannot be read.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A setting that cannot be used.
    #[error("training setting {field}: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A checkpoint that belongs to another training, or is damaged.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the cache that cannot be used any more.
    #[error("the cached file {path} is {reason}; started again, the training makes it anew")]
    Cache {
        /// The file.
        path: PathBuf,
        /// What has become of it.
        reason: String,
    },
    /// No layer of the model is called like a target.
    #[error("no layer of the model ends in {targets:?}; it has {found:?}, ..")]
    NoTargets {
        /// What was asked for.
        targets: Vec<String>,
        /// A few layers that are there.
        found: Vec<String>,
    },
    /// There is nothing to train on.
    #[error("the training set is empty")]
    NoData,
    /// The loss or its gradient is not a number any more. Nothing was changed by that step.
    #[error("the {what} is {value} at step {step}; the samples were {samples:?}")]
    NonFinite {
        /// The step, from 1.
        step: usize,
        /// Which of the two.
        what: &'static str,
        /// Its value.
        value: f32,
        /// Numbers in the training set of those samples that alone have this effect, or of all of the step if none has.
        samples: Vec<usize>,
    },
    /// The observer asked to stop.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// Steps that were done.
        step: usize,
    },
    /// Making a training example failed.
    #[error("example {index} cannot be made")]
    Example {
        /// Its number.
        index: u64,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Values could not be read back from the device.
    #[error("cannot read values back from the device: {reason}")]
    ReadBack {
        /// What the backend said.
        reason: String,
    },
    /// The diffusion model failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// A model's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data set failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The adapter failed.
    #[error(transparent)]
    Lora(#[from] LoraError),
}
