//! How many pictures a training chose from those that were drawn, for the report.

use selma_durable::{create_folder, write_json};
use serde::{Deserialize, Serialize};

use super::held_back::Part;
use crate::adapters::PlannedTraining;
use crate::files::read_json;
use crate::report::SelectionRow;
use crate::{Run, SelmaError};

/// What was chosen of a skill's pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    /// The skill.
    pub(super) skill: String,
    /// Pictures that were drawn.
    pub(super) drawn: usize,
    /// Those that are good enough.
    pub(super) passed: usize,
    /// Those that are trained on.
    pub(super) used: usize,
}

/// Keeps what a training has chosen of its part; nothing, if it does not choose or is only watched by what it chose.
pub(super) fn keep(
    run: &Run,
    training: &PlannedTraining,
    part: Part,
    chosen: &[Chosen],
) -> Result<(), SelmaError> {
    if chosen.is_empty() || part == Part::Validation {
        return Ok(());
    }
    let path = run.layout.selected_of(&training.name);
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    Ok(write_json(&path, &chosen)?)
}

/// What all trainings have chosen.
pub(super) fn rows(run: &Run) -> Result<Vec<SelectionRow>, SelmaError> {
    let mut all = Vec::new();
    for training in &run.trainings {
        let path = run.layout.selected_of(&training.name);
        if !path.is_file() {
            continue;
        }
        let rows: Vec<Chosen> = read_json(&path)?;
        all.extend(rows.into_iter().map(|row| SelectionRow {
            training: training.name.clone(),
            skill: row.skill,
            drawn: row.drawn,
            passed: row.passed,
            used: row.used,
        }));
    }
    Ok(all)
}
