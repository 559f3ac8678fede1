#![doc = include_str!("../README.md")]

mod checkpoint;
mod config;
mod error;
mod factors;
mod objective;
pub mod pretrain;
mod progress;
mod schedule;
mod shards;
mod trainer;
mod training_set;

pub use config::{TrainConfig, ValidTrainConfig};
pub use error::TrainError;
pub use objective::{Batch, Denoising, Objective};
pub use progress::{Observer, Progress};
pub use schedule::{LrScheduler, one_cycle};
pub use trainer::Trainer;
pub use training_set::TrainingSet;
