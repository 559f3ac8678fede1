#![doc = include_str!("../README.md")]

mod error;
mod reader;
mod row;
mod sample;
mod writer;

pub use error::DatasetError;
pub use reader::Dataset;
pub use sample::{Provenance, Sample};
pub use writer::DatasetWriter;

/// Name of the file that lists the samples of a finished dataset.
pub const METADATA_FILE: &str = "metadata.jsonl";

/// Name of the file that lists the samples of a dataset while it is written.
pub const JOURNAL_FILE: &str = "journal.jsonl";
