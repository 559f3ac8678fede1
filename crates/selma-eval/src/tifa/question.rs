//! The questions of an evaluation.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufReader,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{EvalError, Place, files};

/// One multiple-choice question about the image of one prompt: an element of TIFA's `question_answers.json`. Further fields
/// of such files, for example `coco_val_id`, are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TifaQuestion {
    /// The prompt's id ("coco_301091").
    pub id: String,
    /// The prompt itself.
    pub caption: String,
    /// The question.
    pub question: String,
    /// What can be answered: two or more.
    pub choices: Vec<String>,
    /// What the prompt says; one of the choices.
    pub answer: String,
    /// "object", "animal/human", "color", "counting", …
    pub element_type: String,
    /// The words of the prompt that the question is about.
    #[serde(default)]
    pub element: String,
}

/// One prompt and its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TifaItem {
    /// The prompt's id.
    pub id: String,
    /// The prompt.
    pub caption: String,
    /// The questions in the order of the file; never empty.
    pub questions: Vec<TifaQuestion>,
}

/// The questions of an evaluation, by item in the order of their first appearance. A question that stands twice in an item
/// counts twice, as in the reference program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TifaSet {
    items: Vec<TifaItem>,
}

impl TifaSet {
    /// Checks questions made in memory.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without questions; [`EvalError::Cell`] for an empty text, fewer than two choices or the same
    /// twice, an answer that is none of them, another caption than that of the item's other questions, or other choices
    /// for a question that the item has already.
    pub fn new(questions: Vec<TifaQuestion>) -> Result<Self, EvalError> {
        Self::build(questions, Place::Index)
    }

    /// Reads a file in the form of `tifa_v1.0_question_answers.json`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), with the file; [`EvalError::Io`]; [`EvalError::Tifa`] for a file that is not JSON of this form.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let questions = serde_json::from_reader(BufReader::new(files::open(path)?));
        let questions = questions.map_err(|source| EvalError::Tifa {
            path: path.to_path_buf(),
            expected: "a list of TIFA's questions",
            source,
        })?;
        Self::build(questions, |index| Place::Element {
            path: path.to_path_buf(),
            index,
        })
    }

    /// The items in the order of their first appearance; never empty.
    pub fn items(&self) -> &[TifaItem] {
        &self.items
    }

    /// The number of questions of all items.
    pub fn question_count(&self) -> usize {
        self.items.iter().map(|item| item.questions.len()).sum()
    }

    fn build(
        questions: Vec<TifaQuestion>,
        place: impl Fn(usize) -> Place,
    ) -> Result<Self, EvalError> {
        let mut items: Vec<TifaItem> = Vec::new();
        let mut positions: BTreeMap<String, usize> = BTreeMap::new();
        for (index, question) in questions.into_iter().enumerate() {
            let wrong = |column, expected, found: &str| EvalError::Cell {
                place: place(index),
                column,
                expected,
                found: found.to_owned(),
            };
            check(&question, wrong)?;
            let position = *positions.entry(question.id.clone()).or_insert(items.len());
            let Some(item) = items.get_mut(position) else {
                items.push(TifaItem {
                    id: question.id.clone(),
                    caption: question.caption.clone(),
                    questions: vec![question],
                });
                continue;
            };
            if item.caption != question.caption {
                let expected = "the caption of the other questions of this id";
                return Err(wrong("caption", expected, &question.caption));
            }
            let twin = |other: &&TifaQuestion| other.question == question.question;
            if let Some(twin) = item.questions.iter().find(twin)
                && twin.choices != question.choices
            {
                let expected = "the choices of the same question before";
                return Err(wrong("choices", expected, &question.choices.join(", ")));
            }
            item.questions.push(question);
        }
        if items.is_empty() {
            return Err(EvalError::Empty { what: "questions" });
        }
        Ok(Self { items })
    }
}

fn check(
    question: &TifaQuestion,
    wrong: impl Fn(&'static str, &'static str, &str) -> EvalError,
) -> Result<(), EvalError> {
    for (column, text) in [
        ("id", &question.id),
        ("caption", &question.caption),
        ("question", &question.question),
        ("element_type", &question.element_type),
    ] {
        if text.trim().is_empty() {
            return Err(wrong(column, "text that is not empty", text));
        }
    }
    let choices = &question.choices;
    let different: BTreeSet<&String> = choices.iter().collect();
    let empty = choices.iter().any(|choice| choice.trim().is_empty());
    if choices.len() < 2 || different.len() < choices.len() || empty {
        let expected = "two or more different texts";
        return Err(wrong("choices", expected, &choices.join(", ")));
    }
    if !different.contains(&question.answer) {
        return Err(wrong("answer", "one of the choices", &question.answer));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tifa) fn question(id: &str, text: &str, kind: &str) -> TifaQuestion {
        TifaQuestion {
            id: id.to_owned(),
            caption: format!("the caption of {id}"),
            question: text.to_owned(),
            choices: ["red", "green", "blue"].map(str::to_owned).into(),
            answer: "green".to_owned(),
            element_type: kind.to_owned(),
            element: String::new(),
        }
    }

    #[test]
    fn reads_the_published_form_and_passes_over_what_it_does_not_need() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("questions.json");
        let text = r#"[{"id": "b_1", "caption": "a dog", "question": "is this a dog?", "choices": ["yes", "no"],
            "answer": "yes", "element_type": "animal/human", "element": "dog", "coco_val_id": "7"},
            {"id": "a_1", "caption": "two cats", "question": "how many cats?", "choices": ["1", "2"],
            "answer": "2", "element_type": "counting"},
            {"id": "b_1", "caption": "a dog", "question": "is this a dog?", "choices": ["yes", "no"],
            "answer": "yes", "element_type": "animal/human", "element": "dog"}]"#;
        std::fs::write(&path, text).unwrap();
        let set = TifaSet::read(&path).unwrap();
        let items: Vec<_> = set
            .items()
            .iter()
            .map(|item| (item.id.as_str(), item.questions.len()))
            .collect();
        assert_eq!(
            (items, set.question_count()),
            (vec![("b_1", 2), ("a_1", 1)], 3)
        );
        for (wrong, expected) in [
            (
                text.replacen("\"answer\"", "\"answers\"", 1),
                "missing field `answer`",
            ),
            (
                text[..text.len() - 9].to_owned(),
                "is not a list of TIFA's questions",
            ),
            (
                text.replace("\"2\"]", "\"3\"]"),
                "questions.json, question 1 of the list, column answer: expected one of the choices, found \"2\"",
            ),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = TifaSet::read(&path).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error}: {}", source.unwrap_or_default());
            assert!(
                text.contains("questions.json") && text.contains(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let good = || question("a_1", "which colour?", "color");
        let refused = |change: fn(&mut TifaQuestion)| {
            let mut bad = good();
            change(&mut bad);
            TifaSet::new(vec![good(), bad]).unwrap_err().to_string()
        };
        for (error, expected) in [
            (refused(|q| q.id.clear()), "column id"),
            (
                refused(|q| q.question = " ".into()),
                "column question: expected text",
            ),
            (
                refused(|q| q.choices.truncate(1)),
                "expected two or more different texts",
            ),
            (
                refused(|q| q.choices[0] = "green".into()),
                "expected two or more different texts",
            ),
            (
                refused(|q| q.answer = "Green".into()),
                "expected one of the choices, found \"Green\"",
            ),
            (
                refused(|q| q.caption.push('!')),
                "expected the caption of the other",
            ),
            (
                refused(|q| q.choices.reverse()),
                "expected the choices of the same question",
            ),
        ] {
            assert!(
                error.starts_with("question 1 of the list, column"),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!(
            TifaSet::new(Vec::new()),
            Err(EvalError::Empty { .. })
        ));
    }
}
