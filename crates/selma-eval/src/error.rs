use thiserror::Error;

/// Everything that can go wrong in this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The VQA model could not answer.
    #[error("VQA model {model} failed: {message}")]
    Vqa {
        /// [`Vqa::name`](crate::Vqa::name) of the model.
        model: String,
        /// What the model's back end said.
        message: String,
    },
}
