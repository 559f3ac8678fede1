//! Asking a VQA model every question about every image.

use std::ops::ControlFlow;

use image::RgbImage;

use crate::{
    Answers, EvalError, EvalOptions, EvalResult, ImageSource, QuestionSet, Reply, Vqa,
    dsg::{DsgQuestion, Item},
    parallel::in_parallel,
    score,
};

/// What an observer is told after each item.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The item that has just been answered.
    pub item: &'a Item,
    /// Its new answers: proposition and what the model said.
    pub answers: &'a [(u32, Reply)],
    /// Items answered so far, those known beforehand included.
    pub done: usize,
    /// All items.
    pub total: usize,
}

/// Asks every question that `known` does not answer yet and returns all answers.
///
/// An image is loaded once for all its questions, and all images are checked for before the first is asked about; as
/// many are asked about at once as the model likes ([`Vqa::jobs`]). The observer hears of every item that was asked about,
/// in the order in which they are ready; it can keep the answers, so that they are `known` the next time (or see
/// [`CachedVqa`](crate::CachedVqa)), and stops the work by [`ControlFlow::Break`].
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
    let mut done = total - open.len();
    let mut cancelled = false;
    let tasks = open
        .into_iter()
        .map(|(item, open)| Ok((item, open, images.load(&item.id)?)));
    let work = |task| ask_item(vqa, task);
    in_parallel(vqa.jobs(), tasks, work, |(item, given)| {
        let given = given?;
        done += 1;
        // What comes in after a break is kept from the observer, who wants no more.
        if !cancelled {
            let progress = Progress {
                item,
                answers: &given,
                done,
                total,
            };
            cancelled = observer(progress).is_break();
        }
        for (proposition, reply) in given {
            answers.insert(&item.id, proposition, reply);
        }
        if cancelled {
            return Err(EvalError::Cancelled { done, total });
        }
        Ok(())
    })?;
    Ok(answers)
}

/// Propositions with what the model said.
type Given = Vec<(u32, Reply)>;

/// Asks all open questions about the image of an item.
fn ask_item<'a>(
    vqa: &dyn Vqa,
    (item, open, image): (&'a Item, Vec<&DsgQuestion>, RgbImage),
) -> (&'a Item, Result<Given, EvalError>) {
    let texts: Vec<&str> = open
        .iter()
        .map(|question| question.question.as_str())
        .collect();
    let propositions = open.iter().map(|question| question.proposition_id);
    let given = replies(vqa, &item.id, &image, &texts);
    (item, given.map(|given| propositions.zip(given).collect()))
}

/// One reply for each question about the image of an item.
pub(crate) fn replies(
    vqa: &dyn Vqa,
    item: &str,
    image: &RgbImage,
    questions: &[&str],
) -> Result<Vec<Reply>, EvalError> {
    let mut replies = Vec::with_capacity(questions.len());
    vqa.replies(image, questions, &mut |reply| {
        replies.push(reply);
        Ok(())
    })?;
    if replies.len() != questions.len() {
        return Err(EvalError::AnswerCount {
            model: vqa.name().to_owned(),
            item: item.to_owned(),
            expected: questions.len(),
            found: replies.len(),
        });
    }
    Ok(replies)
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
