#![doc = include_str!("../README.md")]

mod checkpoint;
mod config;
mod denoiser;
mod error;
mod factors;
mod feed;
mod objective;
mod pair_set;
mod place;
mod preset;
pub mod pretrain;
mod progress;
mod schedule;
mod shards;
mod trainer;
mod training_set;

pub use checkpoint::TrainCheckpoints;
pub use config::{TrainConfig, ValidTrainConfig};
pub use denoiser::Denoiser;
pub use error::TrainError;
pub use feed::{Draw, Drawn, Feed};
pub use objective::{Batch, Denoising, DiffusionDpo, Loss, Objective, PairBatch, Samples};
pub use pair_set::PairSet;
pub use preset::TrainPreset;
pub use progress::{Observer, Progress};
pub use schedule::{LrScheduler, one_cycle};
pub use trainer::Trainer;
pub use training_set::TrainingSet;
