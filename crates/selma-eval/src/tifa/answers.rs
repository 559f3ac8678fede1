//! Answers to TIFA's questions.

use std::{collections::BTreeMap, io::BufReader, path::Path};

use serde::Deserialize;

use super::ChoiceMethod;
use crate::{EmbedderId, EvalError, files};

/// What a VQA model said to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TifaAnswer {
    /// The model's own words; empty when it gave no answer.
    pub free_form: String,
    /// The choice that they were taken for, where that is known.
    pub choice: Option<String>,
    /// How it was found; `None` for one that came with the answer.
    pub method: Option<ChoiceMethod>,
    /// Why there is no answer, where that is known.
    pub failure: Option<String>,
}

impl TifaAnswer {
    /// The model's own words, if there are any.
    pub fn words(&self) -> Option<&str> {
        Some(self.free_form.as_str()).filter(|words| !words.trim().is_empty())
    }
}

/// Answers by item and question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TifaAnswers {
    by_item: BTreeMap<String, BTreeMap<String, TifaAnswer>>,
    /// Who said which choices were the nearest.
    pub(super) embedder: Option<EmbedderId>,
}

/// A result of the reference program; its other fields are passed over.
#[derive(Deserialize)]
struct File {
    question_details: BTreeMap<String, BTreeMap<String, Details>>,
}

#[derive(Deserialize)]
struct Details {
    free_form_vqa: String,
    #[serde(default)]
    multiple_choice_vqa: Option<String>,
}

impl TifaAnswers {
    /// No answers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records an answer; the one that it replaces, if any, is handed back.
    pub fn insert(&mut self, id: &str, question: &str, answer: TifaAnswer) -> Option<TifaAnswer> {
        self.by_item
            .entry(id.to_owned())
            .or_default()
            .insert(question.to_owned(), answer)
    }

    /// The answer to one question.
    pub fn get(&self, id: &str, question: &str) -> Option<&TifaAnswer> {
        self.by_item.get(id)?.get(question)
    }

    pub(super) fn get_mut(&mut self, id: &str, question: &str) -> Option<&mut TifaAnswer> {
        self.by_item.get_mut(id)?.get_mut(question)
    }

    /// The model that [took](Self::take_nearest) the answers for choices, if one did.
    pub fn embedder(&self) -> Option<&EmbedderId> {
        self.embedder.as_ref()
    }

    /// All answers with item and question, ordered by them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &TifaAnswer)> {
        self.by_item.iter().flat_map(|(id, answers)| {
            answers
                .iter()
                .map(move |(question, answer)| (id.as_str(), question.as_str(), answer))
        })
    }

    /// Reads answers in the form of a result of the reference program (`tifa_score_benchmark`): `question_details`, by id and
    /// question, with `free_form_vqa` and, if it is there, `multiple_choice_vqa`.
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::Tifa`] for a file that is not JSON of this form; [`EvalError::Empty`] without answers.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let file: File =
            serde_json::from_reader(BufReader::new(files::open(path)?)).map_err(|source| {
                EvalError::Tifa {
                    path: path.to_path_buf(),
                    expected: "a result of TIFA's program",
                    source,
                }
            })?;
        let mut answers = Self::new();
        for (id, questions) in file.question_details {
            for (question, details) in questions {
                let answer = TifaAnswer {
                    free_form: details.free_form_vqa,
                    choice: details.multiple_choice_vqa,
                    ..TifaAnswer::default()
                };
                answers.insert(&id, &question, answer);
            }
        }
        if answers.by_item.is_empty() {
            return Err(EvalError::Empty { what: "answers" });
        }
        Ok(answers)
    }
}
