//! What the recipe's scorers say of the pictures of the test prompts.

use std::path::{Path, PathBuf};

use selma_dataset::{Dataset, Pictures, Scores, write_scores};
use selma_eval::stats::Cluster;
use selma_eval::{EvalError, score_pictures};

use super::eval::image_folder;
use crate::report::Preference;
use crate::scorer::SCORED_TOGETHER;
use crate::{Model, NamedScorer, Run, RunEvent, RunObserver, ScorerSettings, SelmaError};

/// The scorers of the recipe, each loaded when it is first needed.
pub(super) struct Scorers(Vec<Option<NamedScorer>>);

impl Scorers {
    pub(super) fn new(run: &Run) -> Self {
        Self(run.recipe.eval.scorers.iter().map(|_| None).collect())
    }

    /// Scores a model's pictures in `folder` by every scorer that has not done so; whether there was one.
    pub(super) fn score(
        &mut self,
        run: &Run,
        model: &Model,
        guidance: f64,
        observer: &mut RunObserver<'_>,
    ) -> Result<bool, SelmaError> {
        let folder = image_folder(run, model, "test", guidance);
        let mut any = false;
        for (settings, slot) in run.recipe.eval.scorers.iter().zip(&mut self.0) {
            let path = path_of(run, model, settings, guidance);
            if path.is_file() {
                continue;
            }
            any = true;
            let scorer = match slot.take() {
                Some(scorer) => scorer,
                None => settings.load(&run.device)?,
            };
            let scorer = slot.insert(scorer);
            let task = format!("{} by {}", model.name, scorer.name);
            score(&folder, scorer, &path, &task, observer)?;
        }
        Ok(any)
    }
}

fn score(
    folder: &Path,
    scorer: &NamedScorer,
    path: &Path,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let pictures = Dataset::open(folder)?;
    let scores = by_scorer(&pictures, scorer, task, observer)?;
    Ok(write_scores(path, &scores)?)
}

/// Scores pictures, and tells the observer.
pub(super) fn by_scorer(
    pictures: &dyn Pictures,
    scorer: &NamedScorer,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<Vec<selma_dataset::Score>, SelmaError> {
    let total = pictures.len();
    let scored = score_pictures(pictures, scorer, SCORED_TOGETHER, |done| {
        observer(RunEvent::Progress {
            task,
            done,
            total,
            unit: "pictures",
            note: None,
        })
    });
    scored.map_err(|error| match error {
        EvalError::Cancelled { .. } => SelmaError::Cancelled,
        other => other.into(),
    })
}

/// Whether a model's pictures are scored by every scorer.
pub(super) fn are_finished(run: &Run, model: &Model, guidance: f64) -> bool {
    let mut scorers = run.recipe.eval.scorers.iter();
    scorers.all(|settings| path_of(run, model, settings, guidance).is_file())
}

fn path_of(run: &Run, model: &Model, settings: &ScorerSettings, guidance: f64) -> PathBuf {
    let name = settings.name();
    run.layout
        .eval_of(&model.name)
        .join(format!("{name}-test-g{guidance}.jsonl"))
}

/// The scores of a model's pictures, a list for each scorer, in the order of the recipe.
pub(super) fn load(
    run: &Run,
    model: &Model,
    guidance: f64,
) -> Result<Vec<Vec<Cluster>>, SelmaError> {
    let scorers = &run.recipe.eval.scorers;
    if scorers.is_empty() {
        return Ok(Vec::new());
    }
    let pictures = Dataset::open(image_folder(run, model, "test", guidance))?;
    let of_scorer = |settings: &ScorerSettings| {
        let path = path_of(run, model, settings, guidance);
        if !path.is_file() {
            return Err(SelmaError::MissingStage {
                path,
                stage: "eval",
            });
        }
        let scores = Scores::read(&path, &pictures)?;
        let clusters = (0..pictures.len()).map(|index| {
            let sum = scores.get(settings.name(), index);
            let sum = sum.ok_or_else(|| SelmaError::Damaged {
                path: path.clone(),
                reason: "the score of a picture is missing".to_owned(),
            })?;
            Ok(Cluster { sum, count: 1 })
        });
        clusters.collect()
    };
    scorers.iter().map(of_scorer).collect()
}

/// What stands in the report of it, beside the base's; `None` for the base itself.
pub(super) fn preferences(
    run: &Run,
    own: &[Vec<Cluster>],
    base: Option<&[Vec<Cluster>]>,
) -> Result<Vec<Preference>, SelmaError> {
    let bootstrap = &run.recipe.eval.bootstrap;
    let scorers = run.recipe.eval.scorers.iter().zip(own).enumerate();
    let preferences = scorers.map(|(index, (settings, own))| {
        let base = base.and_then(|base| base.get(index));
        Ok(Preference {
            scorer: settings.name().to_owned(),
            mean: bootstrap.estimate(own)?,
            difference_to_base: base.map(|base| bootstrap.paired(own, base)).transpose()?,
        })
    });
    preferences.collect()
}
