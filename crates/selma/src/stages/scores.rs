//! What the recipe's scorers say of the pictures of the test prompts.

use std::path::{Path, PathBuf};

use selma_dataset::{Dataset, Pictures, write_scores};
use selma_eval::score_pictures;

use super::eval::image_folder;
use crate::scorer::SCORED_TOGETHER;
use crate::{Model, NamedScorer, Run, RunEvent, RunObserver, ScorerSettings, SelmaError};

/// The scorers of the recipe, each loaded when it is first needed.
pub(super) struct Scorers(Vec<Loaded>);

/// A scorer, and the hash of what it is made of.
struct Loaded {
    sha256: String,
    scorer: Option<NamedScorer>,
}

impl Scorers {
    /// Those of the recipe, which have to be the ones that the run has used before.
    pub(super) fn new(run: &Run) -> Result<Self, SelmaError> {
        let unchanged = |settings: &ScorerSettings| {
            Ok(Loaded {
                sha256: settings.unchanged(run, &format!("scorer {}", settings.name()))?,
                scorer: None,
            })
        };
        let scorers = run.recipe.eval.scorers.iter().map(unchanged);
        Ok(Self(scorers.collect::<Result<_, SelmaError>>()?))
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
        for (settings, loaded) in run.recipe.eval.scorers.iter().zip(&mut self.0) {
            let path = path_of(run, model, settings, guidance);
            if path.is_file() {
                continue;
            }
            any = true;
            let scorer = match loaded.scorer.take() {
                Some(scorer) => scorer,
                None => settings.load_as(loaded.sha256.clone(), &run.device)?,
            };
            let scorer = loaded.scorer.insert(scorer);
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
    Ok(scored?)
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
