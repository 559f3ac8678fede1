#![doc = include_str!("../README.md")]

mod buckets;
mod caption;
mod captioned_folder;
mod error;
mod geometry;
mod open;
mod pairs;
mod picture;
mod plan;
mod reader;
mod row;
mod sample;
mod scores;
mod select;
mod shard;
mod sides;
mod size;
mod skips;
mod source;
mod subset;
mod web_dataset;
mod words;
mod writer;

pub use buckets::{Buckets, BucketsConfig};
pub use error::{DatasetError, Problem};
pub use geometry::{Crop, Geometry, GeometryConfig, View, draw_view};
pub use open::{Layout, OpenOptions, Opened, open_any};
pub use pairs::{Pair, PairReport, PairRule, make_pairs, read_pairs, write_pairs};
pub use plan::{Plan, PlannedSet};
pub use reader::Dataset;
pub use sample::{Provenance, Sample};
pub use scores::{Score, Scores, write_scores};
pub use select::{SelectConfig, SelectReport, Selection, select};
/// What resizes pictures.
pub use selma_image::Filter;
pub use sides::speaks_of_sides;
pub use size::Size;
pub use source::Pictures;
pub use subset::Subset;
pub use writer::DatasetWriter;

/// Name of the file that lists the samples of a finished dataset.
pub const METADATA_FILE: &str = "metadata.jsonl";

/// Name of the file that lists the samples of a finished dataset in the other form that Hugging Face `datasets` reads.
pub const METADATA_CSV: &str = "metadata.csv";

/// Name of the file that lists the samples of a dataset while it is written.
pub const JOURNAL_FILE: &str = "journal.jsonl";
