//! Questions by item, checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use selma_durable::atomic_write;

use super::{DsgQuestion, Quirk, Quirks, graph, question, table};
use crate::{EvalError, Place};

/// One prompt and its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The prompt's id.
    pub id: String,
    /// The prompt.
    pub text: String,
    /// What [`by_group`](crate::EvalResult::by_group) groups it under: a source or a skill.
    pub group: String,
    /// The questions in the order of the file; never empty.
    pub questions: Vec<DsgQuestion>,
}

/// The questions of an evaluation, by item in the order of their first appearance.
///
/// Every item has one prompt, no proposition twice, and only dependencies on its own propositions. In a strict set
/// there are no circular dependencies. A question may depend on one that stands further below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionSet {
    items: Vec<Item>,
    quirks: Vec<Quirk>,
}

impl QuestionSet {
    /// Checks questions made in memory, by the rules of [`Quirks::Strict`].
    ///
    /// # Errors
    /// [`EvalError::Empty`] without questions; [`EvalError::Cell`] for an empty id or question or a proposition 0;
    /// [`EvalError::DuplicateProposition`], [`EvalError::PromptDiffers`], [`EvalError::UnknownParent`],
    /// [`EvalError::DependencyCycle`] when the questions of an item do not fit together.
    pub fn new(questions: Vec<DsgQuestion>) -> Result<Self, EvalError> {
        let rows = questions
            .into_iter()
            .enumerate()
            .map(|(index, question)| (Place::Index(index), question));
        Self::build(rows.collect(), Quirks::Strict, Vec::new())
    }

    /// Reads an annotation file with DSG's columns: `item_id`, `text`, `keywords`, `proposition_id`, `dependency`,
    /// `category_broad`, `category_detailed`, `tuple`, `question_natural_language`, in any order.
    ///
    /// [`quirks`](Self::quirks) tells what a lenient reading passed over.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), with file and line; [`EvalError::Io`], [`EvalError::Csv`],
    /// [`EvalError::MissingColumn`], [`EvalError::UnexpectedColumn`] and [`EvalError::Cell`] for the file itself.
    pub fn read(path: &Path, quirks: Quirks) -> Result<Self, EvalError> {
        let (rows, notes) = table::read(path, quirks)?;
        Self::build(rows, quirks, notes)
    }

    /// Writes an annotation file with DSG's columns, which the reference programs read too.
    ///
    /// # Errors
    /// [`EvalError::Durable`] when the file cannot be written; the old one is then untouched.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        Ok(atomic_write(path, &self.to_csv(path)?)?)
    }

    /// The bytes of such a file; `path` is what an error calls it.
    ///
    /// # Errors
    /// [`EvalError::Csv`] or [`EvalError::Durable`] when a question has no form as CSV.
    pub fn to_csv(&self, path: &Path) -> Result<Vec<u8>, EvalError> {
        table::to_csv(path, self.items.iter().flat_map(|item| &item.questions))
    }

    /// Groups the items by something else than the source in their ids, for example by skill.
    #[must_use]
    pub fn group_by(mut self, group: impl Fn(&Item) -> String) -> Self {
        for item in &mut self.items {
            item.group = group(item);
        }
        self
    }

    /// Leaves out items, for example all but the first ones of each source.
    ///
    /// # Errors
    /// [`EvalError::Empty`] when none is left.
    pub fn retain(mut self, keep: impl FnMut(&Item) -> bool) -> Result<Self, EvalError> {
        self.items.retain(keep);
        match self.items.is_empty() {
            true => Err(EvalError::Empty { what: "questions" }),
            false => Ok(self),
        }
    }

    /// The items in the order of their first appearance; never empty.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The number of questions of all items.
    pub fn question_count(&self) -> usize {
        self.items.iter().map(|item| item.questions.len()).sum()
    }

    /// What a lenient reading passed over; empty for a strict one.
    pub fn quirks(&self) -> &[Quirk] {
        &self.quirks
    }

    fn build(rows: table::Rows, quirks: Quirks, mut notes: Vec<Quirk>) -> Result<Self, EvalError> {
        let mut items: Vec<(Item, Vec<Place>)> = Vec::new();
        let mut positions: BTreeMap<String, usize> = BTreeMap::new();
        for (place, question) in rows {
            check_cells(&place, &question)?;
            let position = *positions
                .entry(question.item_id.clone())
                .or_insert(items.len());
            match items.get_mut(position) {
                Some((item, places)) => {
                    if item.text != question.text {
                        return Err(EvalError::PromptDiffers {
                            place,
                            item: question.item_id,
                            expected: item.text.clone(),
                            found: question.text,
                        });
                    }
                    item.questions.push(question);
                    places.push(place);
                }
                None => {
                    let item = Item {
                        id: question.item_id.clone(),
                        text: question.text.clone(),
                        group: question::source(&question.item_id).to_owned(),
                        questions: vec![question],
                    };
                    items.push((item, vec![place]));
                }
            }
        }
        if items.is_empty() {
            return Err(EvalError::Empty { what: "questions" });
        }
        for (item, places) in &mut items {
            check_graph(item, places, quirks, &mut notes)?;
        }
        Ok(Self {
            items: items.into_iter().map(|(item, _)| item).collect(),
            quirks: notes,
        })
    }
}

fn check_cells(place: &Place, question: &DsgQuestion) -> Result<(), EvalError> {
    let cells = [
        ("item_id", &question.item_id),
        ("text", &question.text),
        ("category_broad", &question.category_broad),
        ("category_detailed", &question.category_detailed),
        ("question_natural_language", &question.question),
    ];
    for (column, cell) in cells {
        if cell.trim().is_empty() {
            return Err(EvalError::Cell {
                place: place.clone(),
                column,
                expected: "text that is not empty",
                found: cell.clone(),
            });
        }
    }
    if question.proposition_id == 0 {
        return Err(EvalError::Cell {
            place: place.clone(),
            column: "proposition_id",
            expected: "an integer from 1 on",
            found: "0".to_owned(),
        });
    }
    Ok(())
}

fn check_graph(
    item: &mut Item,
    places: &[Place],
    quirks: Quirks,
    notes: &mut Vec<Quirk>,
) -> Result<(), EvalError> {
    let mut known = BTreeSet::new();
    for (question, place) in item.questions.iter().zip(places) {
        if !known.insert(question.proposition_id) {
            return Err(EvalError::DuplicateProposition {
                place: place.clone(),
                item: item.id.clone(),
                proposition: question.proposition_id,
            });
        }
    }
    for (question, place) in item.questions.iter_mut().zip(places) {
        let proposition = question.proposition_id;
        let unknown = question
            .dependency
            .iter()
            .find(|parent| !known.contains(parent));
        if let (Quirks::Strict, Some(&parent)) = (quirks, unknown) {
            return Err(EvalError::UnknownParent {
                place: place.clone(),
                item: item.id.clone(),
                proposition,
                parent,
            });
        }
        if quirks == Quirks::Strict {
            continue;
        }
        question.dependency.retain(|&parent| {
            if parent == proposition {
                let item = item.id.clone();
                notes.push(Quirk::SelfReference { item, proposition });
            } else if !known.contains(&parent) {
                let item = item.id.clone();
                notes.push(Quirk::UnknownParent {
                    item,
                    proposition,
                    parent,
                });
            }
            parent != proposition && known.contains(&parent)
        });
    }
    let propositions = item.questions.iter();
    let propositions = propositions.map(|q| (q.proposition_id, q.dependency.as_slice()));
    if let Some(cycle) = graph::find_cycle(propositions) {
        if quirks != Quirks::Strict {
            notes.push(Quirk::Cycle {
                item: item.id.clone(),
                cycle,
            });
            return Ok(());
        }
        let place = item
            .questions
            .iter()
            .zip(places)
            .find(|(question, _)| cycle.first() == Some(&question.proposition_id))
            .map_or(Place::Index(0), |(_, place)| place.clone());
        return Err(EvalError::DependencyCycle {
            place,
            item: item.id.clone(),
            cycle,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsg::question::tests::question;

    #[test]
    fn keeps_items_in_order_of_first_appearance_even_when_their_rows_are_mixed() {
        let set = QuestionSet::new(vec![
            question("b_1", 1, &[]),
            question("a_1", 1, &[]),
            question("b_1", 2, &[1]),
        ])
        .unwrap();
        let ids: Vec<_> = set
            .items()
            .iter()
            .map(|item| (item.id.as_str(), item.questions.len()))
            .collect();
        assert_eq!(ids, [("b_1", 2), ("a_1", 1)]);
        assert_eq!(set.question_count(), 3);
        assert_eq!(set.items()[0].group, "b");
        let set = set.group_by(|item| format!("skill of {}", item.id));
        assert_eq!(set.items()[1].group, "skill of a_1");
        let some = set.clone().retain(|item| item.id == "a_1").unwrap();
        assert_eq!(
            (some.items().len(), some.items()[0].id.as_str()),
            (1, "a_1")
        );
        assert!(matches!(
            set.retain(|_| false),
            Err(EvalError::Empty { .. })
        ));
    }

    #[test]
    fn a_dependency_may_point_down_but_not_into_nothing() {
        assert!(QuestionSet::new(vec![question("a_1", 1, &[2]), question("a_1", 2, &[])]).is_ok());
        let error = QuestionSet::new(vec![question("a_1", 1, &[]), question("a_1", 2, &[1, 3])])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "question 1 of the list, column dependency: proposition 2 of item a_1 depends on 3, which does not exist"
        );
    }

    #[test]
    fn another_items_proposition_is_no_parent() {
        let error =
            QuestionSet::new(vec![question("a_1", 1, &[]), question("b_1", 2, &[1])]).unwrap_err();
        assert!(
            matches!(error, EvalError::UnknownParent { parent: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn refuses_duplicates_circles_mixed_prompts_and_empty_cells() {
        let error =
            QuestionSet::new(vec![question("a_1", 1, &[]), question("a_1", 1, &[])]).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::DuplicateProposition {
                    place: Place::Index(1),
                    proposition: 1,
                    ..
                }
            ),
            "{error}"
        );
        let error =
            QuestionSet::new(vec![question("a_1", 1, &[2]), question("a_1", 2, &[1])]).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("circular dependency 1 -> 2 -> 1"),
            "{error}"
        );
        let mut other = question("a_1", 2, &[]);
        other.text = "another prompt".to_owned();
        let error = QuestionSet::new(vec![question("a_1", 1, &[]), other]).unwrap_err();
        assert!(matches!(error, EvalError::PromptDiffers { .. }), "{error}");
        let mut empty = question("a_1", 1, &[]);
        empty.question = " ".to_owned();
        let error = QuestionSet::new(vec![empty]).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::Cell {
                    column: "question_natural_language",
                    ..
                }
            ),
            "{error}"
        );
        let error = QuestionSet::new(vec![question("a_1", 0, &[])]).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::Cell {
                    column: "proposition_id",
                    ..
                }
            ),
            "{error}"
        );
        assert!(matches!(
            QuestionSet::new(Vec::new()),
            Err(EvalError::Empty { .. })
        ));
    }
}
