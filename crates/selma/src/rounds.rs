//! Rounds: the merged model of one run is the base of the next, as DreamSync (arXiv 2311.17946) iterates.

use std::path::{Path, PathBuf};

use selma_durable::{atomic_write, create_folder};
use selma_eval::compare;
use selma_lora::Adapter;
use selma_lora::merge::Weighted;
use serde::{Deserialize, Serialize};

use crate::adapters::BASE;
use crate::report::{RoundRow, RoundTable};
use crate::stages::eval::{chosen_guidance, load};
use crate::{Recipe, Run, SelmaError};

/// `[rounds]`: how often a recipe is gone through.
///
/// Every round is a run of its own with the same prompts, in the folder `round-N`. At its end a merged adapter goes into the weights of its base: the folder (or file) `model`
/// there, from which the next round draws and trains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundStage {
    /// How many rounds.
    pub count: usize,
    /// Name of the merge whose result is carried on; the first of `[merge]` if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<String>,
}

/// One round of a recipe.
#[derive(Debug, Clone)]
pub struct Round {
    /// Counted from 1.
    pub number: usize,
    /// The recipe of its run.
    pub recipe: Recipe,
    /// The folder of its run.
    pub folder: PathBuf,
    /// The folder of the round before.
    before: Option<PathBuf>,
    carry: String,
}

impl Recipe {
    /// The rounds of a recipe with `[rounds]`, below a folder; none for one without.
    #[must_use]
    pub fn rounds(&self, folder: &Path) -> Vec<Round> {
        let Some(rounds) = &self.rounds else {
            return Vec::new();
        };
        let first = self.merge.methods.first();
        let first = first.map_or_else(String::new, |method| method.name.clone());
        let carry = rounds.carry.clone().unwrap_or(first);
        let folder_of = |number: usize| folder.join(format!("round-{number}"));
        let round = |number: usize| {
            let before = (number > 1).then(|| folder_of(number - 1));
            let model = before.as_ref().map(|before| before.join(Round::MODEL));
            Round {
                number,
                recipe: Recipe {
                    name: format!("{}-round-{number}", self.name),
                    model: model.unwrap_or_else(|| self.model.clone()),
                    rounds: None,
                    ..self.clone()
                },
                folder: folder_of(number),
                before,
                carry: carry.clone(),
            }
        };
        (1..=rounds.count).map(round).collect()
    }
}

impl Round {
    /// Name of the model that a round leaves, in its folder.
    pub const MODEL: &'static str = "model";

    /// Sees to it that the run of this round has what it takes over: the prompts of the round before.
    ///
    /// # Errors
    ///
    /// [`SelmaError::MissingStage`] if the round before is not finished, and errors of reading and writing.
    pub fn begin(&self, run: &Run) -> Result<(), SelmaError> {
        let Some(before) = &self.before else {
            return Ok(());
        };
        let model = before.join(Self::MODEL);
        if !model.exists() {
            return Err(SelmaError::MissingStage {
                path: model,
                stage: "report",
            });
        }
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SelmaError::Io {
                action,
                path,
                source,
            }
        };
        let (from, to) = (before.join("prompts"), run.layout.prompts());
        create_folder(&to)?;
        for entry in std::fs::read_dir(&from).map_err(io("read", &from))? {
            let path = entry.map_err(io("read", &from))?.path();
            let copy = path.file_name().map(|name| to.join(name));
            if let Some(copy) = copy.filter(|copy| path.is_file() && !copy.exists()) {
                let bytes = std::fs::read(&path).map_err(io("read", &path))?;
                atomic_write(&copy, &bytes)?;
            }
        }
        Ok(())
    }

    /// Puts the merged adapter of this round into the weights of its base, unless that was done.
    ///
    /// # Errors
    ///
    /// [`SelmaError::MissingStage`] if nothing is merged yet, and errors of reading and writing.
    pub fn carry(&self, run: &Run) -> Result<(), SelmaError> {
        let model = self.folder.join(Self::MODEL);
        if model.exists() {
            return Ok(());
        }
        let path = run.layout.merged(&self.carry);
        if !path.is_file() {
            return Err(SelmaError::MissingStage {
                path,
                stage: "merge",
            });
        }
        let adapter = Adapter::load(&path)?;
        let weighted = Weighted {
            adapter: &adapter,
            weight: 1.0,
        };
        run.checkpoint()?.fuse_to(&model, &[weighted])?;
        Ok(())
    }
}

/// What finished rounds have gained: bases and carried models, on the same prompts from the same noise, each at the guidance that its own round chose.
///
/// # Errors
///
/// [`SelmaError::MissingStage`] where an evaluation is not finished.
pub fn compare_rounds(rounds: &[Round], runs: &[Run]) -> Result<RoundTable, SelmaError> {
    let mut first = None;
    let mut rows = Vec::with_capacity(runs.len());
    for (round, run) in rounds.iter().zip(runs) {
        let name = format!("merged-{}", round.carry);
        let result = |wanted: &str| {
            let models = run.models().into_iter();
            let model = models.into_iter().find(|model| model.name == wanted);
            let model = model.ok_or_else(|| SelmaError::Setting {
                field: "rounds.carry".to_owned(),
                expected: "the name of a merge".to_owned(),
                found: round.carry.clone(),
            })?;
            load(run, &model, "test", chosen_guidance(run, &model)?)
        };
        let (base, carried) = (result(BASE)?, result(&name)?);
        rows.push(RoundRow {
            round: round.number,
            base: base.overall,
            carried: carried.overall,
            difference: compare(&carried, &base)?,
            since_first: compare(&carried, first.get_or_insert(base))?,
        });
    }
    Ok(RoundTable { rows })
}
