#![doc = include_str!("../README.md")]

mod checkpoint;
mod config;
mod denoiser;
mod encoded;
mod encoding_cache;
mod encodings;
mod error;
mod factors;
mod feed;
mod objective;
mod pair_set;
mod place;
mod prefetch;
mod preset;
pub mod pretrain;
mod progress;
mod schedule;
mod shards;
mod shown;
mod trainer;
mod training_set;

pub use checkpoint::TrainCheckpoints;
pub use config::{TrainConfig, ValidTrainConfig};
pub use denoiser::Denoiser;
pub use encoding_cache::EncodingCache;
pub use encodings::EncodeReport;
pub use error::TrainError;
pub use feed::{Draw, Drawn, Feed, Source};
pub use objective::{Batch, Denoising, DiffusionDpo, Loss, Objective, PairBatch, Samples};
pub use pair_set::PairSet;
pub use prefetch::Prefetch;
pub use preset::TrainPreset;
pub use progress::{Observer, Progress, StepTime};
pub use schedule::{LrScheduler, one_cycle};
pub use trainer::Trainer;
pub use training_set::TrainingSet;
