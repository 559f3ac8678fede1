//! The crate's error.

use std::path::PathBuf;

use selma_durable::DurableError;

/// What can be wrong with the settings and files given to this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RougeError {
    /// The threshold of a [`DiversityFilter`](crate::DiversityFilter) lies outside its range.
    #[error("the threshold must be greater than 0 and at most 1, found {found}")]
    Threshold {
        /// The value given.
        found: f64,
    },
    /// The beta of a [`DiversityFilter`](crate::DiversityFilter) lies outside its range.
    #[error("beta must be between 0 and 1000, found {found}")]
    Beta {
        /// The value given.
        found: f64,
    },
    /// No policy for texts without tokens has this name.
    #[error("unknown policy `{found}` for texts without tokens, expected `keep` or `distinct`")]
    UnknownWithoutTokens {
        /// The name that was given.
        found: String,
    },
    /// No tokenizer has this name.
    #[error("unknown tokenizer `{found}`, expected `rouge`, `rouge-stemmed` or `unicode`")]
    UnknownTokenizer {
        /// The name given.
        found: Box<str>,
    },
    /// A file cannot be read or written, or one of its lines is not what it should be.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file is not the state of a filter.
    #[error("{} is not the state of a diversity filter: its first line does not say so", path.display())]
    NotAState {
        /// The file.
        path: PathBuf,
    },
    /// A state was written by another version of this crate.
    #[error("{} is a filter's state of version {found}, expected {expected}", path.display())]
    StateVersion {
        /// The file.
        path: PathBuf,
        /// The version that this crate reads.
        expected: u32,
        /// The version of the file.
        found: u32,
    },
    /// A state does not end with its checksum.
    #[error("{} is cut: after {lines} lines there is no checksum", path.display())]
    StateEnd {
        /// The file.
        path: PathBuf,
        /// Whole lines that are there.
        lines: usize,
    },
    /// A state has more or fewer texts than it says.
    #[error("{} has {found} texts, expected {expected}", path.display())]
    StateTexts {
        /// The file.
        path: PathBuf,
        /// The number in its first line.
        expected: usize,
        /// Texts that are there.
        found: usize,
    },
    /// The bytes of a state are not those that were written.
    #[error("{} is damaged: its checksum is {found}, expected {expected}", path.display())]
    StateChecksum {
        /// The file.
        path: PathBuf,
        /// SHA-256 in its last line.
        expected: Box<str>,
        /// SHA-256 of the lines that are there.
        found: Box<str>,
    },
}
