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
pub mod png;
pub mod presets;
pub mod schedulers;
pub mod scorers;
pub mod sentences;
pub mod single_file;
pub mod tokenizer;
pub mod vqa;
pub mod weights;

pub use checkpoint::{Checkpoint, CheckpointOptions, Component, ConfigSource, Difference, Stored};
pub use device::device;
pub use error::{DiffusionError, Origin};
pub use pipeline::{Generated, InitImage, Latents, StableDiffusion, TextToImage};
