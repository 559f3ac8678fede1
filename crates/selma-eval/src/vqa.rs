//! The one thing a metric asks of a visual question answering model.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// How likely a model was to answer "yes".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct YesProbability {
    /// P(yes) / (P(yes) + P(no)), between 0 and 1: the VQAScore of the question (arXiv 2404.01291).
    pub probability: f64,
    /// P(yes) + P(no). Far below 1, the model wanted to say something else, or the server did not list the words.
    pub coverage: f64,
}

/// What a model said to one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The model's own words, not normalised. Empty when it gave no answer.
    pub text: String,
    /// How likely "yes" was, where the model tells.
    pub yes: Option<YesProbability>,
    /// Why there is no answer, where that is known.
    pub failure: Option<String>,
}

impl Reply {
    /// Whether there is an answer.
    pub fn is_answered(&self) -> bool {
        !self.text.trim().is_empty()
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// What a model calls with each [`Reply`]; it may fail, which ends the asking.
pub type Told<'a> = dyn FnMut(Reply) -> Result<(), EvalError> + 'a;

/// A model that answers free-form questions about an image.
///
/// Implementors: an exact oracle over rendered scenes, a vision model behind an HTTP API, BLIP-VQA. Only
/// [`name`](Self::name) and [`answer`](Self::answer) must be written.
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

    /// As [`answer`](Self::answer), with what the model knows beside its words; `told` gets each reply as soon as it is
    /// there, in the order of the questions. Default: those of `answer`, all at the end.
    ///
    /// # Errors
    /// Those of [`answer`](Self::answer) and of `told`.
    fn replies(
        &self,
        image: &RgbImage,
        questions: &[&str],
        told: &mut Told<'_>,
    ) -> Result<(), EvalError> {
        let answers = self.answer(image, questions)?;
        answers.into_iter().try_for_each(|text| told(text.into()))
    }

    /// What the answers depend on besides name, image and question, so that a [`CachedVqa`](crate::CachedVqa) does not
    /// take those of other settings. Default: nothing.
    fn settings(&self) -> String {
        String::new()
    }

    /// About how many images to ask at once. Default 1: a model in the same process has its own threads.
    fn jobs(&self) -> usize {
        1
    }
}

/// [`Vqa::answer`] of a model that is written as [`Vqa::replies`]: the texts of the replies.
///
/// # Errors
/// Those of [`Vqa::replies`].
pub fn texts_of_replies(
    vqa: &impl Vqa,
    image: &RgbImage,
    questions: &[&str],
) -> Result<Vec<String>, EvalError> {
    let mut texts = Vec::with_capacity(questions.len());
    vqa.replies(image, questions, &mut |reply| {
        texts.push(reply.text);
        Ok(())
    })?;
    Ok(texts)
}
