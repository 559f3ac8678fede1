//! The one thing a metric asks of a visual question answering model.

use image::RgbImage;

use crate::EvalError;

/// A model that answers free-form questions about an image.
///
/// Implementors: an exact oracle over rendered scenes, a vision model behind an HTTP API, BLIP-VQA.
pub trait Vqa: Send + Sync {
    /// Name and version of the model, recorded in every result it produced.
    fn name(&self) -> &str;

    /// Answers `questions` about one image: one answer per question, in the order of the questions.
    ///
    /// An answer is the model's own text, not normalised. The empty string means that the model gave no
    /// answer; the metrics count and report it as unanswered.
    ///
    /// # Errors
    /// [`EvalError::Vqa`] when the model could not be asked at all.
    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError>;
}
