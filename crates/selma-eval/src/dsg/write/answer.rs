//! What the model answers in each step, and what is wrong with it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::dsg::graph;

/// What yes/no questions begin with; those of DSG-1k begin with the first five.
const BEGINNINGS: [&str; 21] = [
    "is", "are", "does", "do", "am", "was", "were", "did", "has", "have", "had", "can", "could",
    "will", "would", "should", "may", "might", "must", "isn't", "aren't",
];

/// One fact of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tuple {
    /// From 1 on.
    pub(super) id: u32,
    /// "entity", "attribute", "relation", "global" or "other".
    pub(super) category: String,
    /// "whole", "color", …; "-" for global ones.
    pub(super) detail: String,
    /// What it is about, and what is said of it.
    pub(super) words: Vec<String>,
}

impl Tuple {
    /// The words as one cell.
    pub(super) fn keywords(&self) -> String {
        self.words.join(", ")
    }
}

impl fmt::Display for Tuple {
    /// As DSG writes them: `attribute - color (motorcycle, red)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keywords = self.keywords();
        write!(f, "{} - {} ({keywords})", self.category, self.detail)
    }
}

/// Facts with ids from 1 on, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTuples")]
pub(super) struct Tuples(pub(super) Vec<Tuple>);

#[derive(Deserialize)]
struct RawTuples {
    tuples: Vec<Tuple>,
}

impl TryFrom<RawTuples> for Tuples {
    type Error = String;

    fn try_from(RawTuples { mut tuples }: RawTuples) -> Result<Self, String> {
        let mut seen = BTreeSet::new();
        for (number, tuple) in (1..).zip(&mut tuples) {
            if tuple.id != number {
                return Err(format!(
                    "the ids must be 1, 2, 3, ..., found {} in place of {number}",
                    tuple.id
                ));
            }
            tuple.detail = tuple.detail.trim().to_owned();
            for word in &mut tuple.words {
                *word = word.trim().to_owned();
            }
            if tuple.detail.is_empty() || tuple.words.iter().any(String::is_empty) {
                return Err(format!("tuple {number} has an empty detail or word"));
            }
            if !seen.insert(tuple.to_string()) {
                return Err(format!("tuple {number} stands twice: {tuple}"));
            }
        }
        Ok(Self(tuples))
    }
}

/// Which facts each fact presupposes; without circles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawDependencies")]
pub(super) struct Dependencies(Vec<Dependency>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dependency {
    pub(super) id: u32,
    pub(super) parents: Vec<u32>,
}

#[derive(Deserialize)]
struct RawDependencies {
    dependencies: Vec<Dependency>,
}

impl TryFrom<RawDependencies> for Dependencies {
    type Error = String;

    fn try_from(RawDependencies { mut dependencies }: RawDependencies) -> Result<Self, String> {
        once(dependencies.iter().map(|dependency| dependency.id))?;
        for Dependency { id, parents } in &mut dependencies {
            // DSG writes 0 for none.
            parents.retain(|parent| *parent != 0);
            parents.sort_unstable();
            parents.dedup();
            if parents.contains(id) {
                return Err(format!("tuple {id} cannot depend on itself"));
            }
        }
        let propositions = dependencies.iter().map(|d| (d.id, d.parents.as_slice()));
        match graph::find_cycle(propositions) {
            None => Ok(Self(dependencies)),
            Some(cycle) => {
                let cycle: Vec<String> = cycle.iter().map(u32::to_string).collect();
                let cycle = cycle.join(" on ");
                Err(format!("the dependencies go in a circle: {cycle}"))
            }
        }
    }
}

impl Dependencies {
    /// What the fact presupposes.
    pub(super) fn of(&self, id: u32) -> Vec<u32> {
        let found = self.0.iter().find(|dependency| dependency.id == id);
        found.map(|found| found.parents.clone()).unwrap_or_default()
    }
}

/// Each fact as a question with the answer "yes" or "no".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawQuestions")]
pub(super) struct Questions(Vec<Question>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) id: u32,
    pub(super) question: String,
}

#[derive(Deserialize)]
struct RawQuestions {
    questions: Vec<Question>,
}

impl TryFrom<RawQuestions> for Questions {
    type Error = String;

    fn try_from(RawQuestions { mut questions }: RawQuestions) -> Result<Self, String> {
        once(questions.iter().map(|question| question.id))?;
        for Question { id, question } in &mut questions {
            *question = question.trim().to_owned();
            let first = question.split_whitespace().next().unwrap_or_default();
            let begins = BEGINNINGS.contains(&first.to_lowercase().replace('’', "'").as_str());
            if !begins || !question.ends_with('?') {
                return Err(format!(
                    "question {id} cannot be answered with yes or no: {question:?}"
                ));
            }
        }
        Ok(Self(questions))
    }
}

impl Questions {
    /// The question of the fact; empty if there is none.
    pub(super) fn of(&self, id: u32) -> String {
        let found = self.0.iter().find(|question| question.id == id);
        found
            .map(|found| found.question.clone())
            .unwrap_or_default()
    }
}

/// Sees that no id stands twice. That all are there the schema says, by their number.
fn once(ids: impl Iterator<Item = u32>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(format!("id {id} stands twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn wrong<T: DeserializeOwned + fmt::Debug>(value: Value) -> String {
        serde_json::from_value::<T>(value).unwrap_err().to_string()
    }

    #[test]
    fn tuples_are_counted_and_different() {
        let tuple = |id: u32, word: &str| json!({"id": id, "category": "entity", "detail": "whole", "words": [word]});
        let read: Tuples =
            serde_json::from_value(json!({"tuples": [tuple(1, " dog "), tuple(2, "cat")]}))
                .unwrap();
        assert_eq!(read.0[0].to_string(), "entity - whole (dog)");
        for (tuples, expected) in [
            (vec![tuple(0, "dog")], "found 0 in place of 1"),
            (
                vec![tuple(1, "dog"), tuple(3, "cat")],
                "found 3 in place of 2",
            ),
            (vec![tuple(1, " ")], "tuple 1 has an empty detail or word"),
            (
                vec![tuple(1, "dog"), tuple(2, "dog")],
                "tuple 2 stands twice: entity - whole (dog)",
            ),
        ] {
            let reason = wrong::<Tuples>(json!({"tuples": tuples}));
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn dependencies_have_no_circles() {
        let of = |all: &[(u32, &[u32])]| {
            let all = all
                .iter()
                .map(|(id, parents)| json!({"id": id, "parents": parents}));
            json!({"dependencies": all.collect::<Vec<_>>()})
        };
        let read: Dependencies =
            serde_json::from_value(of(&[(2, &[1, 0, 1]), (1, &[0]), (3, &[])])).unwrap();
        assert_eq!(
            (read.of(1), read.of(2), read.of(3)),
            (vec![], vec![1], vec![])
        );
        for (all, expected) in [
            (of(&[(1, &[1])]), "tuple 1 cannot depend on itself"),
            (of(&[(1, &[2]), (2, &[1])]), "in a circle: 1 on 2 on 1"),
            (of(&[(1, &[]), (1, &[])]), "id 1 stands twice"),
        ] {
            let reason = wrong::<Dependencies>(all);
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn questions_are_answered_with_yes_or_no() {
        let of = |question: &str| json!({"questions": [{"id": 1, "question": question}]});
        for good in [
            "Is there a dog?",
            " are they red? ",
            "Isn’t it odd?",
            "Does it say \"Hi\"?",
        ] {
            let read: Questions = serde_json::from_value(of(good)).unwrap();
            assert_eq!(read.of(1), good.trim());
        }
        for bad in [
            "What colour is it?",
            "There is a dog.",
            "Is there a dog",
            "",
            "How many?",
        ] {
            let reason = wrong::<Questions>(of(bad));
            assert!(
                reason.contains("cannot be answered with yes or no"),
                "{reason}"
            );
        }
    }
}
