//! The crate's error.

/// What can be wrong with the settings given to this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RougeError {
    /// The threshold of a [`DiversityFilter`](crate::DiversityFilter) lies outside its range.
    #[error("the threshold must be greater than 0 and at most 1, found {found}")]
    Threshold {
        /// The value given.
        found: f64,
    },
    /// No tokenizer has this name.
    #[error("unknown tokenizer `{found}`, expected `rouge` or `unicode`")]
    UnknownTokenizer {
        /// The name given.
        found: Box<str>,
    },
}
