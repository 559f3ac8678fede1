//! Asking a VQA model TIFA's questions.

use std::ops::ControlFlow;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{TifaAnswer, TifaAnswers, TifaItem, TifaQuestion, TifaResult, TifaSet, score};
use crate::{
    Bootstrap, EvalError, ImageSource, Reply, Vqa, evaluate::replies, parallel::in_parallel,
};

/// What a model is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TifaPrompt {
    /// "Answer the multiple-choice question. Question: … Choices: … Answer:", as the reference program asks BLIP-2 (`BLIP2.vqa` in
    /// `tifascore/vqa_models.py`).
    #[default]
    Choices,
    /// "Answer the question. Question: … Answer:", likewise where there are no choices.
    FreeForm,
    /// The question and nothing else, as it asks all other models.
    Question,
}

impl TifaPrompt {
    /// The text for a question.
    pub fn text(self, question: &TifaQuestion) -> String {
        let (text, choices) = (&question.question, question.choices.join(", "));
        match self {
            Self::Choices => format!(
                "Answer the multiple-choice question. Question: {text} Choices: {choices} Answer:"
            ),
            Self::FreeForm => format!("Answer the question. Question: {text} Answer:"),
            Self::Question => text.clone(),
        }
    }
}

/// What an observer is told after each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TifaProgress {
    /// Items asked about so far.
    pub done: usize,
    /// All items.
    pub total: usize,
    /// Questions without an answer so far.
    pub unanswered: usize,
}

/// Asks every question about every image, as many images at once as the model likes ([`Vqa::jobs`]), and returns the
/// answers, not yet taken for choices. All images are checked for before the first is asked about.
///
/// # Errors
/// Those of [`crate::ask`].
pub fn ask(
    set: &TifaSet,
    images: &impl ImageSource,
    vqa: &dyn Vqa,
    prompt: TifaPrompt,
    mut observer: impl FnMut(TifaProgress) -> ControlFlow<()>,
) -> Result<TifaAnswers, EvalError> {
    for item in set.items() {
        images.check(&item.id)?;
    }
    let mut answers = TifaAnswers::new();
    let mut progress = TifaProgress {
        done: 0,
        total: set.items().len(),
        unanswered: 0,
    };
    let tasks = set
        .items()
        .iter()
        .map(|item| Ok((item, images.load(&item.id)?)));
    let work = |task| ask_item(vqa, prompt, task);
    in_parallel(vqa.jobs(), tasks, work, |(item, given)| {
        for (question, reply) in item.questions.iter().zip(given?) {
            progress.unanswered += usize::from(!reply.is_answered());
            let answer = TifaAnswer {
                free_form: reply.text,
                failure: reply.failure,
                ..TifaAnswer::default()
            };
            answers.insert(&item.id, &question.question, answer);
        }
        progress.done += 1;
        match observer(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled {
                done: progress.done,
                total: progress.total,
            }),
        }
    })?;
    Ok(answers)
}

fn ask_item<'a>(
    vqa: &dyn Vqa,
    prompt: TifaPrompt,
    (item, image): (&'a TifaItem, RgbImage),
) -> (&'a TifaItem, Result<Vec<Reply>, EvalError>) {
    let texts = item.questions.iter().map(|question| prompt.text(question));
    let texts: Vec<String> = texts.collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    (item, replies(vqa, &item.id, &image, &texts))
}

/// [`ask`]s every question and [`score`]s the answers. `model` names who drew the images. For choices by sentence embeddings,
/// [`TifaAnswers::take_nearest`] goes between the two.
///
/// # Errors
/// Those of [`ask`] and of [`score`].
pub fn evaluate(
    model: &str,
    set: &TifaSet,
    images: &impl ImageSource,
    vqa: &dyn Vqa,
    prompt: TifaPrompt,
    bootstrap: &Bootstrap,
    observer: impl FnMut(TifaProgress) -> ControlFlow<()>,
) -> Result<TifaResult, EvalError> {
    bootstrap.validate()?;
    let answers = ask(set, images, vqa, prompt, observer)?;
    score(model, vqa.name(), Some(prompt), set, &answers, bootstrap)
}
