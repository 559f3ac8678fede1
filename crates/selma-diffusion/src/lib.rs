//! Stable Diffusion on burn.

mod checkpoint;
pub mod config;
mod device;
mod error;
pub mod models;
pub mod nn;
pub mod schedulers { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct SchedulerError; #[derive(Debug)] pub struct SchedulerConfig; #[derive(Debug)] pub struct SchedulerKind; impl SchedulerConfig { pub fn load(_:&std::path::Path)->Result<(SchedulerKind,Self),SchedulerError>{Err(SchedulerError)} } }
pub mod tokenizer { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct TokenizerError; #[derive(Debug)] pub struct ClipTokenizer; impl ClipTokenizer { pub fn load(_:&std::path::Path)->Result<Self,TokenizerError>{Err(TokenizerError)} } }
pub mod weights;

pub use checkpoint::{Checkpoint, Component};
pub use device::device;
pub use error::DiffusionError;
