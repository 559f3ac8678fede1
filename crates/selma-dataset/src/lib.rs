#![doc = include_str!("../README.md")]

mod caption;
mod captioned_folder;
mod error;
mod open;
mod pairs;
mod picture;
mod reader;
mod row;
mod sample;
mod scores;
mod select;
mod shard;
mod skips;
mod source;
mod subset;
mod web_dataset;
mod words;
mod writer;

pub use error::{DatasetError, Problem};
pub use open::{Layout, OpenOptions, Opened, open_any};
pub use pairs::{Pair, PairReport, PairRule, make_pairs, read_pairs, write_pairs};
pub use reader::Dataset;
pub use sample::{Provenance, Sample};
pub use scores::{Score, Scores, write_scores};
pub use select::{SelectConfig, SelectReport, Selection, select};
pub use source::Pictures;
pub use subset::Subset;
pub use writer::DatasetWriter;

/// Name of the file that lists the samples of a finished dataset.
pub const METADATA_FILE: &str = "metadata.jsonl";

/// Name of the file that lists the samples of a finished dataset in the other form that Hugging Face `datasets` reads.
pub const METADATA_CSV: &str = "metadata.csv";

/// Name of the file that lists the samples of a dataset while it is written.
pub const JOURNAL_FILE: &str = "journal.jsonl";
