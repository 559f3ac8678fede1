//! What can be wrong with a single-file checkpoint.

use std::path::PathBuf;

use thiserror::Error;

use crate::presets::Family;

/// Why a file is not taken for a Stable Diffusion in the original layout.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SingleFileError {
    /// The file is of something else.
    #[error("{} is no whole Stable Diffusion 1, 2 or XL in the original layout, but {found}", path.display())]
    Family {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The file holds tensors that no part of the model has.
    #[error("{}: {} tensors are no part of {family}: {}", path.display(), keys.len(), list(keys))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What the file was taken for.
        family: Family,
        /// Their names.
        keys: Vec<String>,
    },
    /// A tensor from whose shape a size is taken is missing or of another shape.
    #[error("{}: tensor {key:?}: expected {expected}, found {found}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// What is needed.
        expected: &'static str,
        /// Its shape, or that it is missing.
        found: String,
    },
}

/// At most eight names.
fn list(keys: &[String]) -> String {
    let shown: Vec<&str> = keys.iter().take(8).map(String::as_str).collect();
    let more = if keys.len() > shown.len() { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}
