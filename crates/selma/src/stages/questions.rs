//! The prompts that models are compared on, and their questions.

use std::collections::BTreeMap;

use selma_eval::QuestionSet;
use selma_mini::{EvalItem, EvalSet, Partition};
use sha2::{Digest, Sha256};

use crate::{QuestionFile, Run, SelmaError};

/// Prompts with their questions.
pub(super) struct Questions {
    /// `test` or `validation`.
    pub(super) name: &'static str,
    pub(super) set: QuestionSet,
}

/// The test set.
pub(super) fn test(run: &Run) -> Result<Questions, SelmaError> {
    let stage = &run.recipe.eval;
    let set = match &stage.questions {
        None => own(run, Partition::Test, stage.prompts)?,
        Some(file) => of_file(file, stage.prompts)?,
    };
    Ok(Questions { name: "test", set })
}

/// The validation set, if there is one.
pub(super) fn validation(run: &Run) -> Result<Option<Questions>, SelmaError> {
    let count = run.recipe.eval.validation;
    if count == 0 {
        return Ok(None);
    }
    let set = own(run, Partition::Validation, count)?;
    Ok(Some(Questions {
        name: "validation",
        set,
    }))
}

/// Sees that the questions are those that the run has asked before. Those of the miniature always are.
pub(super) fn check_unchanged(run: &Run, questions: &Questions) -> Result<(), SelmaError> {
    let Some(file) = &run.recipe.eval.questions else {
        return Ok(());
    };
    let csv = questions.set.to_csv(&file.csv)?;
    run.unchanged("file of questions", &hex::encode(Sha256::digest(csv)))
}

/// The miniature's own, of the skills of the run.
fn own(run: &Run, partition: Partition, per_style: usize) -> Result<QuestionSet, SelmaError> {
    let set = EvalSet::draw(partition, per_style, run.seed("eval set", &[]))?;
    let skills: Vec<&str> = run.skills.iter().map(|skill| skill.name.as_str()).collect();
    let items = set
        .items()
        .iter()
        .filter(|item| skills.contains(&item.skill.name()));
    Ok(QuestionSet::new(
        items.flat_map(EvalItem::questions).collect(),
    )?)
}

/// Those of a file; of each source the first ones, if not all are wanted.
fn of_file(file: &QuestionFile, per_source: usize) -> Result<QuestionSet, SelmaError> {
    let set = QuestionSet::read(&file.csv, file.quirks)?;
    if per_source == 0 {
        return Ok(set);
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    Ok(set.retain(|item| {
        let count = counts.entry(item.group.clone()).or_default();
        *count += 1;
        *count <= per_source
    })?)
}
