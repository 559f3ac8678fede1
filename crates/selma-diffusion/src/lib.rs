#![doc = include_str!("../README.md")]

mod checkpoint;
pub mod config;
mod device;
mod error;
pub mod image;
pub mod models;
pub mod nn;
pub mod noise;
pub mod pipeline;
pub mod presets;
pub mod schedulers;
pub mod single_file;
pub mod tokenizer;
pub mod weights;

pub use checkpoint::{Checkpoint, CheckpointOptions, Component, ConfigSource, Stored};
pub use device::device;
pub use error::DiffusionError;
pub use pipeline::{Generated, Latents, StableDiffusion, TextToImage};
