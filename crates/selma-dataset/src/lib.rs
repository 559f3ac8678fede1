#![doc = include_str!("../README.md")]

mod buckets;
mod error;
mod geometry;
mod plan;
mod reader;
mod row;
mod sample;
mod sides;
mod size;
mod writer;

pub use buckets::{Buckets, BucketsConfig};
pub use error::DatasetError;
pub use geometry::{Crop, Geometry, GeometryConfig, View, draw_view};
pub use plan::{Plan, PlannedSet};
pub use reader::Dataset;
pub use sample::{Provenance, Sample};
/// What resizes pictures.
pub use selma_image::Filter;
pub use sides::speaks_of_sides;
pub use size::Size;
pub use writer::DatasetWriter;

/// Name of the file that lists the samples of a finished dataset.
pub const METADATA_FILE: &str = "metadata.jsonl";

/// Name of the file that lists the samples of a dataset while it is written.
pub const JOURNAL_FILE: &str = "journal.jsonl";
