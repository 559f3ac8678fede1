//! Answers of a VQA model by item and proposition.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::table::{Table, integer};
use crate::{EvalError, Place, Reply};

/// The columns of DSG's `vqa_answers_release/*_dsg.csv` that carry answers.
const COLUMNS: [&str; 4] = ["t2i_model", "item_id", "question_id", "answer"];

/// A VQA model's own words, by item and proposition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    by_item: BTreeMap<String, BTreeMap<u32, Reply>>,
}

impl Answers {
    /// No answers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records an answer; the one that it replaces, if any, is handed back.
    pub fn insert(&mut self, item_id: &str, proposition_id: u32, answer: Reply) -> Option<Reply> {
        self.by_item
            .entry(item_id.to_owned())
            .or_default()
            .insert(proposition_id, answer)
    }

    /// The words of the answer to one question.
    pub fn get(&self, item_id: &str, proposition_id: u32) -> Option<&str> {
        self.reply(item_id, proposition_id)
            .map(|reply| reply.text.as_str())
    }

    /// All that is known of the answer to one question.
    pub fn reply(&self, item_id: &str, proposition_id: u32) -> Option<&Reply> {
        self.by_item.get(item_id)?.get(&proposition_id)
    }

    /// The words of all answers, ordered by item id and proposition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.by_item.iter().flat_map(|(item, answers)| {
            answers.iter().map(move |(proposition, answer)| {
                (item.as_str(), *proposition, answer.text.as_str())
            })
        })
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.by_item.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_item.is_empty()
    }

    /// Reads answers in the form of DSG's release: a CSV file with at least the columns `t2i_model`, `item_id`,
    /// `question_id` and `answer`. With `t2i_model`, only the rows of that image model.
    ///
    /// # Errors
    /// [`EvalError::Io`], [`EvalError::Csv`], [`EvalError::MissingColumn`], [`EvalError::Cell`] for the file;
    /// [`EvalError::NoAnswersForModel`] when it has no row of that image model, [`EvalError::Empty`] when it has no
    /// row at all, [`EvalError::DuplicateAnswer`] when a question is answered twice.
    pub fn read(path: &Path, t2i_model: Option<&str>) -> Result<Self, EvalError> {
        let mut answers = Self::new();
        let mut models = BTreeSet::new();
        Table::open(path, COLUMNS)?.for_each(|place, [model, item, question, answer]| {
            models.insert(model.to_owned());
            if t2i_model.is_some_and(|wanted| wanted != model) {
                return Ok(());
            }
            let proposition = integer(&place, "question_id", question)?;
            answers.insert_new(place, item, proposition, answer)
        })?;
        match t2i_model {
            Some(requested) if answers.is_empty() => Err(EvalError::NoAnswersForModel {
                path: path.to_path_buf(),
                requested: requested.to_owned(),
                found: models.into_iter().collect::<Vec<_>>().join(", "),
            }),
            None if answers.is_empty() => Err(EvalError::Empty { what: "answers" }),
            _ => Ok(answers),
        }
    }

    fn insert_new(
        &mut self,
        place: Place,
        item: &str,
        proposition: u32,
        answer: &str,
    ) -> Result<(), EvalError> {
        match self.insert(item, proposition, answer.into()) {
            None => Ok(()),
            Some(_) => Err(EvalError::DuplicateAnswer {
                place,
                item: item.to_owned(),
                proposition,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, model: Option<&str>) -> Result<Answers, EvalError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.csv");
        std::fs::write(&path, text).unwrap();
        Answers::read(&path, model)
    }

    const TWO_MODELS: &str = "dsg_prompt_split,qg_model,t2i_model,item_id,question,question_id,dependency_id,answer\n\
        a,dsg,sd1,a_1,Is there a cat?,1,0,yes\n\
        a,dsg,sd1,a_1,\"Is it red, or not?\",2,\"1\",no bus\n\
        a,dsg,sd2,a_1,Is there a cat?,1,0,no\n";

    #[test]
    fn reads_one_image_model_of_a_release() {
        let answers = read(TWO_MODELS, Some("sd1")).unwrap();
        assert_eq!(
            answers.iter().collect::<Vec<_>>(),
            [("a_1", 1, "yes"), ("a_1", 2, "no bus")]
        );
        assert_eq!(answers.get("a_1", 3), None);
        assert_eq!(read(TWO_MODELS, Some("sd2")).unwrap().len(), 1);
    }

    #[test]
    fn refuses_a_model_that_is_not_there_and_two_at_once() {
        let error = read(TWO_MODELS, Some("sd3")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("no answers for \"sd3\", found sd1, sd2"),
            "{error}"
        );
        let error = read(TWO_MODELS, None).unwrap_err();
        assert!(
            matches!(
                &error,
                EvalError::DuplicateAnswer {
                    place: Place::File { line: 4, .. },
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn refuses_an_empty_file_a_missing_column_and_a_wrong_id() {
        assert!(matches!(
            read("", None),
            Err(EvalError::MissingColumn {
                column: "t2i_model",
                ..
            })
        ));
        let header = "t2i_model,item_id,question_id,answer\n";
        assert!(matches!(read(header, None), Err(EvalError::Empty { .. })));
        assert!(matches!(
            read("t2i_model,item_id,question_id\n", None),
            Err(EvalError::MissingColumn {
                column: "answer",
                ..
            })
        ));
        let error = read(&format!("{header}sd1,a_1,one,yes\n"), None).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::Cell {
                    column: "question_id",
                    ..
                }
            ),
            "{error}"
        );
    }
}
