#![doc = include_str!("../README.md")]

mod adapter;
mod adapter_file;
mod batches;
mod compare;
mod dtype;
mod eigen;
mod error;
mod extract;
mod format;
pub mod fuse;
mod gram;
pub mod init;
mod inspect;
mod linalg;
mod matching;
pub mod merge;
mod mixture;
mod models;
mod module;
#[cfg(feature = "burn")]
pub mod nn;
mod number;
mod rank;
mod reader;
mod truncated;
mod update;

pub use adapter::{Adapter, Source};
pub use adapter_file::{AdapterFile, ConversionReport, ConvertedModule};
pub use compare::{Comparison, ModuleComparison};
pub use dtype::Dtype;
pub use error::LoraError;
pub use extract::{ExtractReport, ExtractedModule, WeightPair};
pub use format::{Format, LeftOut, ModuleNames};
pub use fuse::{FuseReport, FusedFile};
pub use inspect::{ModuleSummary, Summary};
pub use matching::{LoadReport, MisShaped};
pub use merge::{Merge, MergeReport, Method, Weighted, WeightedFile};
pub use mixture::{MixedModule, MixedPart, Mixing, Mixture};
pub use models::Model;
pub use module::LoraModule;
pub use rank::{Cut, RankRule, ResizeReport, ResizedModule};
pub use reader::AdapterReader;
pub use update::{Dora, Kind, Loha, Lokr, Update};
