#![doc = include_str!("../README.md")]

mod adapter;
mod dtype;
mod error;
mod format;
pub mod init;
mod inspect;
mod linalg;
mod matching;
pub mod merge;
mod module;
#[cfg(feature = "burn")]
pub mod nn;

pub use adapter::{Adapter, Source};
pub use dtype::Dtype;
pub use error::LoraError;
pub use format::{Format, ModuleNames};
pub use inspect::{ModuleSummary, Summary};
pub use matching::{LoadReport, MisShaped};
pub use merge::{Merge, MergeReport, Method, Weighted};
pub use module::LoraModule;
