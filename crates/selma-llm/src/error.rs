//! The one error type of this crate.

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// The model cannot serve such a request, e.g. one with images.
    #[error("model '{model}' does not support {what}")]
    Unsupported {
        /// The model that was asked.
        model: String,
        /// What it was asked for.
        what: String,
    },
    /// A model outside this crate failed for a reason of its own.
    #[error("model '{model}' failed")]
    Model {
        /// The model that was asked.
        model: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
