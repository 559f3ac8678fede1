//! Questions written by a language model, in DSG's three steps: tuples, dependencies, questions.

mod answer;
mod request;

use std::{collections::BTreeMap, ops::ControlFlow};

use selma_llm::{ChatModel, LlmError, complete_json};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::answer::{Dependencies, Questions, Tuple, Tuples};
use super::{DsgQuestion, QuestionSet};
use crate::{
    EvalError,
    parallel::in_parallel,
    patience::{Patience, concerns_all},
    rating::StudyPrompt,
};

/// A prompt without questions, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnwrittenItem {
    /// The prompt's id.
    pub id: String,
    /// The prompt.
    pub text: String,
    /// "tuples", "dependencies" or "questions": the step that failed.
    pub step: String,
    /// What was wrong; of an answer that could not be used, with its beginning.
    pub reason: String,
}

/// What [`write_questions`] made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrittenQuestions {
    /// The questions of all prompts that have some, in the order of the prompts.
    pub questions: Vec<DsgQuestion>,
    /// The other prompts, in their order.
    pub unwritten: Vec<UnwrittenItem>,
}

/// What an observer is told after each prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteProgress {
    /// Prompts done, with questions or without.
    pub done: usize,
    /// Those of them without.
    pub unwritten: usize,
    /// All prompts.
    pub total: usize,
}

/// The steps as tables and errors call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tuples,
    Dependencies,
    Questions,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Tuples => "tuples",
            Self::Dependencies => "dependencies",
            Self::Questions => "questions",
        }
    }
}

/// Has `model` write the yes/no questions of each prompt: what the prompt says, one tuple a fact; which fact presupposes
/// which; and each as a question. Three requests a prompt, at temperature 0, as many at once as the model likes.
///
/// The requests have the structure of the published ones (`query_utils.py` of `j-min/DSG`): the task in its words, examples, and
/// the prompt. What differs: answers are JSON of a schema instead of lines with `|`, and there are five examples of our own
/// instead of 23 from TIFA160. An answer that does not fit (ids twice or left out, a proposition that presupposes itself, be it
/// over others, a question that cannot be answered with yes or no) is shown to the model once, with what is wrong; if the next is no better, the prompt is among
/// [`unwritten`](WrittenQuestions::unwritten). So is one whose request fails, while ten such in a row, or what concerns
/// all requests, end the work. With a [`Recorded`](selma_llm::Recorded) model, a further run asks only for the rest.
///
/// # Errors
/// [`EvalError::Empty`] without prompts, [`EvalError::Writer`] when the model cannot be asked,
/// [`EvalError::Cancelled`] when the observer stopped.
pub fn write_questions(
    model: &dyn ChatModel,
    prompts: &[StudyPrompt],
    mut observer: impl FnMut(WriteProgress) -> ControlFlow<()>,
) -> Result<WrittenQuestions, EvalError> {
    if prompts.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    let writer = Writer {
        model,
        patience: Patience::default(),
    };
    let total = prompts.len();
    let mut written: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut progress = WriteProgress {
        done: 0,
        unwritten: 0,
        total,
    };
    let tasks = prompts.iter().enumerate().map(Ok);
    let work = |(index, prompt): (usize, &StudyPrompt)| (index, writer.item(prompt));
    in_parallel(model.in_flight(), tasks, work, |(index, outcome)| {
        let outcome = outcome?;
        progress.done += 1;
        progress.unwritten += usize::from(outcome.is_err());
        written.insert(index, outcome);
        match observer(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled {
                done: progress.done,
                total,
            }),
        }
    })?;
    let mut all = WrittenQuestions::default();
    for outcome in written.into_values() {
        match outcome {
            Ok(questions) => all.questions.extend(questions),
            Err(unwritten) => all.unwritten.push(unwritten),
        }
    }
    Ok(all)
}

/// The questions of a prompt, or why it has none.
type Outcome = Result<Vec<DsgQuestion>, UnwrittenItem>;

/// Why a prompt has no questions, or why no further one will have any.
enum Failure {
    Prompt(UnwrittenItem),
    All(EvalError),
}

struct Writer<'a> {
    model: &'a dyn ChatModel,
    patience: Patience,
}

impl Writer<'_> {
    fn item(&self, prompt: &StudyPrompt) -> Result<Outcome, EvalError> {
        match self.questions(prompt) {
            Ok(questions) => Ok(Ok(questions)),
            Err(Failure::Prompt(unwritten)) => Ok(Err(unwritten)),
            Err(Failure::All(error)) => Err(error),
        }
    }

    /// All three steps.
    fn questions(&self, prompt: &StudyPrompt) -> Result<Vec<DsgQuestion>, Failure> {
        let tuples: Tuples = self.ask(Step::Tuples, prompt, &[])?;
        let dependencies: Dependencies = self.ask(Step::Dependencies, prompt, &tuples.0)?;
        let questions: Questions = self.ask(Step::Questions, prompt, &tuples.0)?;
        let rows = tuples.0.iter().map(|tuple| DsgQuestion {
            item_id: prompt.id.clone(),
            text: prompt.text.clone(),
            keywords: tuple.keywords(),
            proposition_id: tuple.id,
            dependency: dependencies.of(tuple.id),
            category_broad: tuple.category.clone(),
            category_detailed: tuple.detail.clone(),
            tuple: tuple.to_string(),
            question: questions.of(tuple.id),
        });
        let rows: Vec<DsgQuestion> = rows.collect();
        // Checked as any file of questions is; whatever the steps let through is found here.
        match QuestionSet::new(rows.clone()) {
            Ok(_) => Ok(rows),
            Err(error) => Err(unwritten(prompt, Step::Questions, error.to_string())),
        }
    }

    /// The answer to one step.
    fn ask<T: DeserializeOwned>(
        &self,
        step: Step,
        prompt: &StudyPrompt,
        tuples: &[Tuple],
    ) -> Result<T, Failure> {
        let give_up = |message| Failure::All(EvalError::Writer { message });
        let request = request::request(step, &prompt.text, tuples).map_err(give_up)?;
        match complete_json::<T>(self.model, None, &request) {
            Ok(answer) => {
                self.patience.answered();
                Ok(answer.value)
            }
            Err(error) if concerns_all(&error) => Err(give_up(error.to_string())),
            // There was an answer, only not one that can be used.
            Err(error @ LlmError::Json { .. }) => {
                self.patience.answered();
                Err(unwritten(prompt, step, error.to_string()))
            }
            Err(error) => match self.patience.failed(error.to_string()) {
                Ok(reason) => Err(unwritten(prompt, step, reason)),
                Err(message) => Err(give_up(message)),
            },
        }
    }
}

fn unwritten(prompt: &StudyPrompt, step: Step, reason: String) -> Failure {
    Failure::Prompt(UnwrittenItem {
        id: prompt.id.clone(),
        text: prompt.text.clone(),
        step: step.name().to_owned(),
        reason,
    })
}
