//! Stable Diffusion on burn.

pub mod config;
mod device;
mod error;
pub mod models;
pub mod nn;
pub mod schedulers { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct SchedulerError; }
pub mod tokenizer { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct TokenizerError; }
pub mod weights;

pub use device::device;
pub use error::DiffusionError;
