//! Training of LoRA experts on diffusion models.

mod error;
mod files;
pub mod pretrain;
mod progress;
mod schedule;

pub use error::TrainError;
pub use progress::{Observer, Progress};
pub use schedule::one_cycle;
