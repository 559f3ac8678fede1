//! What can be wrong with a single-file checkpoint.

use std::path::PathBuf;

use thiserror::Error;

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
