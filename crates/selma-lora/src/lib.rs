#![doc = include_str!("../README.md")]

mod adapter;
mod dtype;
mod error;
mod format;
mod module;
#[cfg(feature = "burn")]
pub mod nn;

pub use adapter::{Adapter, Source};
pub use dtype::Dtype;
pub use error::LoraError;
pub use format::{Format, ModuleNames};
pub use module::LoraModule;
