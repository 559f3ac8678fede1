//! Asking a VQA model every question about every image.

use std::ops::ControlFlow;

use crate::{
    Answers, EvalError, EvalOptions, EvalResult, ImageSource, QuestionSet, Vqa,
    dsg::{DsgQuestion, Item},
    score,
};

/// What an observer is told after each item.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The item that has just been answered.
    pub item: &'a Item,
    /// Its new answers: proposition and the model's own words.
    pub answers: &'a [(u32, String)],
    /// Items answered so far, those known beforehand included.
    pub done: usize,
    /// All items.
    pub total: usize,
}

/// Asks every question that `known` does not answer yet and returns all answers.
///
/// An image is loaded once for all its questions, and all images are checked for before the first is asked about.
/// The observer hears of every item that was asked about; it can keep the answers, so that they are `known` the next
/// time, and stops the work by [`ControlFlow::Break`].
///
/// # Errors
/// [`EvalError::MissingImage`], [`EvalError::Image`], [`EvalError::ItemId`] for an image; [`EvalError::Vqa`] from
/// the model, [`EvalError::AnswerCount`] when it does not give one answer per question;
/// [`EvalError::Cancelled`] when the observer stopped.
pub fn ask(
    questions: &QuestionSet,
    images: &impl ImageSource,
    vqa: &dyn Vqa,
    known: Answers,
    mut observer: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Answers, EvalError> {
    let mut answers = known;
    let open: Vec<(&Item, Vec<&DsgQuestion>)> = questions
        .items()
        .iter()
        .map(|item| {
            let open = item
                .questions
                .iter()
                .filter(|question| answers.get(&item.id, question.proposition_id).is_none());
            (item, open.collect())
        })
        .filter(|(_, open): &(_, Vec<_>)| !open.is_empty())
        .collect();
    for (item, _) in &open {
        images.check(&item.id)?;
    }
    let total = questions.items().len();
    let before = total - open.len();
    for (done, (item, open)) in (before + 1..).zip(open) {
        let image = images.load(&item.id)?;
        let texts: Vec<&str> = open
            .iter()
            .map(|question| question.question.as_str())
            .collect();
        let given = vqa.answer(&image, &texts)?;
        if given.len() != texts.len() {
            return Err(EvalError::AnswerCount {
                model: vqa.name().to_owned(),
                item: item.id.clone(),
                expected: texts.len(),
                found: given.len(),
            });
        }
        let given: Vec<(u32, String)> = open
            .iter()
            .map(|question| question.proposition_id)
            .zip(given)
            .collect();
        let flow = observer(Progress {
            item,
            answers: &given,
            done,
            total,
        });
        for (proposition, answer) in given {
            answers.insert(&item.id, proposition, answer);
        }
        if flow.is_break() {
            return Err(EvalError::Cancelled { done, total });
        }
    }
    Ok(answers)
}

/// [`ask`]s every question and [`score`]s the answers. `model` names who drew the images.
///
/// # Errors
/// Those of [`ask`] and of [`score`].
pub fn evaluate(
    model: &str,
    questions: &QuestionSet,
    images: &impl ImageSource,
    vqa: &dyn Vqa,
    options: &EvalOptions,
    observer: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<EvalResult, EvalError> {
    options.bootstrap.validate()?;
    let answers = ask(questions, images, vqa, Answers::new(), observer)?;
    score(model, vqa.name(), questions, &answers, options)
}
