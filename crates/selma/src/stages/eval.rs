//! Stage 5: all models draw prompts that none was trained on, and are asked about their pictures.

use selma_dataset::METADATA_FILE;
use selma_diffusion::schedulers::build;
use selma_diffusion::{DiffusionError, StableDiffusion};
use selma_eval::{EvalOptions, EvalResult, ImageFolder, QuestionSet, evaluate};
use selma_lora::Adapter;
use selma_mini::{EvalItem, EvalSet, OracleVqa, Partition};

use super::images::load_once;
use super::prompts::finished;
use crate::draw::{Drawing, DrawingStyle, draw};
use crate::{Model, Run, RunEvent, RunObserver, SelmaError};

/// Name of the branches of the model that is evaluated.
const BRANCH: &str = "evaluated";

/// Prompts with their questions.
struct Questions {
    /// `test` or `validation`.
    name: &'static str,
    items: Vec<EvalItem>,
    set: QuestionSet,
}

/// The test set and the validation set.
fn sets(run: &Run) -> Result<[Questions; 2], SelmaError> {
    let stage = &run.recipe.eval;
    Ok([
        questions(run, "test", Partition::Test, stage.prompts)?,
        questions(run, "validation", Partition::Validation, stage.validation)?,
    ])
}

/// Sees that the model and the settings of drawing can be used and the world has as many prompts as are wanted, before
/// any work is done.
pub(crate) fn check(run: &Run) -> Result<(), SelmaError> {
    let recipe = &run.recipe;
    let checkpoint = run.checkpoint()?;
    let config = checkpoint.scheduler_config()?;
    for (kind, steps) in [
        (recipe.images.scheduler, recipe.images.steps),
        (recipe.eval.scheduler, recipe.eval.steps),
    ] {
        let kind = match kind {
            Some(kind) => kind,
            None => checkpoint.scheduler()?.0,
        };
        build(kind, &config, steps).map_err(DiffusionError::from)?;
    }
    sets(run)?;
    Ok(())
}

/// Draws and judges the pictures of every model.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let stage = &run.recipe.eval;
    let [test, validation] = sets(run)?;
    let hash = run.model_hash()?;
    let mut pipeline = None;
    let models = run.models().into_iter();
    for model in models.filter(|model| wanted(&model.name)) {
        let mut before = true;
        if let Some(path) = model.adapter.as_ref().filter(|path| !path.is_file()) {
            return Err(SelmaError::MissingStage {
                path: path.clone(),
                stage: if path.parent().is_some_and(|dir| dir.ends_with("merged")) {
                    "merge"
                } else {
                    "train"
                },
            });
        }
        let mut judge = Judge {
            run,
            model: &model,
            hash,
            pipeline: &mut pipeline,
            adapter: None,
            before: &mut before,
        };
        if stage.guidances.len() > 1 {
            for &guidance in &stage.guidances {
                judge.result(&validation, guidance, observer)?;
            }
        }
        let chosen = chosen_guidance(run, &model)?;
        for &guidance in &stage.guidances {
            if stage.curve || guidance == chosen {
                judge.result(&test, guidance, observer)?;
            }
        }
        let attached = judge.adapter.is_some();
        if let Some(pipeline) = pipeline.as_mut().filter(|_| attached) {
            pipeline.detach(BRANCH);
        }
        finished(observer, &model.name, before)?;
    }
    Ok(())
}

/// Whether a model's pictures of the test prompts are judged.
pub(crate) fn is_finished(run: &Run, model: &Model) -> bool {
    let chosen = chosen_guidance(run, model);
    chosen.is_ok_and(|guidance| result_path(run, model, "test", guidance).is_file())
}

/// The scale of guidance at which a model does best on the validation prompts; the smallest of equals.
pub(crate) fn chosen_guidance(run: &Run, model: &Model) -> Result<f64, SelmaError> {
    let guidances = &run.recipe.eval.guidances;
    let mut best: Option<(f64, f64)> = None;
    for &guidance in guidances {
        let score = if guidances.len() > 1 {
            load(run, model, "validation", guidance)?.overall.mean
        } else {
            0.0
        };
        let better =
            |(scale, found): (f64, f64)| score > found || (score == found && guidance < scale);
        if best.is_none_or(better) {
            best = Some((guidance, score));
        }
    }
    best.map(|(guidance, _)| guidance)
        .ok_or_else(|| SelmaError::Setting {
            field: "eval.guidances".to_owned(),
            expected: "at least one".to_owned(),
            found: "none".to_owned(),
        })
}

/// A finished evaluation.
pub(crate) fn load(
    run: &Run,
    model: &Model,
    set: &str,
    guidance: f64,
) -> Result<EvalResult, SelmaError> {
    let path = result_path(run, model, set, guidance);
    if !path.is_file() {
        return Err(SelmaError::MissingStage {
            path,
            stage: "eval",
        });
    }
    Ok(EvalResult::load(&path)?)
}

/// Folder of the pictures of an evaluation.
pub(crate) fn image_folder(
    run: &Run,
    model: &Model,
    set: &str,
    guidance: f64,
) -> std::path::PathBuf {
    run.layout
        .eval_of(&model.name)
        .join(format!("{set}-g{guidance}"))
}

/// What the names of the run's own results begin with.
pub(crate) const RESULT_PREFIX: &str = "dsg-";

fn result_path(run: &Run, model: &Model, set: &str, guidance: f64) -> std::path::PathBuf {
    run.layout
        .eval_of(&model.name)
        .join(format!("{RESULT_PREFIX}{set}-g{guidance}.json"))
}

fn questions(
    run: &Run,
    name: &'static str,
    partition: Partition,
    per_style: usize,
) -> Result<Questions, SelmaError> {
    let set = EvalSet::draw(partition, per_style, run.seed("eval set", &[]))?;
    let skills: Vec<&str> = run.skills.iter().map(|skill| skill.name.as_str()).collect();
    let items = set
        .items()
        .iter()
        .filter(|item| skills.contains(&item.skill.name()));
    let items: Vec<EvalItem> = items.cloned().collect();
    let rows = items.iter().flat_map(EvalItem::questions).collect();
    Ok(Questions {
        name,
        set: QuestionSet::new(rows)?,
        items,
    })
}

/// Draws and judges one model.
struct Judge<'a> {
    run: &'a Run,
    model: &'a Model,
    hash: &'a str,
    pipeline: &'a mut Option<StableDiffusion>,
    /// Hash of the adapter, once it is on the pipeline.
    adapter: Option<String>,
    /// Whether everything asked for so far was finished before.
    before: &'a mut bool,
}

impl Judge<'_> {
    /// Makes an evaluation unless it is there.
    fn result(
        &mut self,
        questions: &Questions,
        guidance: f64,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let path = result_path(self.run, self.model, questions.name, guidance);
        if path.is_file() {
            return Ok(());
        }
        *self.before = false;
        let folder = image_folder(self.run, self.model, questions.name, guidance);
        if !folder.join(METADATA_FILE).is_file() {
            self.draw(questions, guidance, &folder, observer)?;
        }
        let task = format!("{} at {guidance}", self.model.name);
        let stage = &self.run.recipe.eval;
        let options = EvalOptions {
            aggregation: stage.aggregation,
            bootstrap: stage.bootstrap,
            ..EvalOptions::default()
        };
        let images = ImageFolder::new(&folder);
        let mut observe = |progress: selma_eval::Progress<'_>| {
            observer(RunEvent::Progress {
                task: &task,
                done: progress.done,
                total: progress.total,
                unit: "pictures",
                note: None,
            })
        };
        let (name, set) = (&self.model.name, &questions.set);
        let result = evaluate(name, set, &images, &OracleVqa, &options, &mut observe);
        let result = result.map_err(|error| match error {
            selma_eval::EvalError::Cancelled { .. } => SelmaError::Cancelled,
            other => other.into(),
        })?;
        Ok(result.save(&path)?)
    }

    fn draw(
        &mut self,
        questions: &Questions,
        guidance: f64,
        folder: &std::path::Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let stage = &self.run.recipe.eval;
        let pipeline = load_once(self.pipeline, self.run, Run::checkpoint)?;
        if let (Some(path), None) = (&self.model.adapter, &self.adapter) {
            let adapter = Adapter::load(path)?;
            pipeline.attach(&adapter, BRANCH, 1.0)?;
            self.adapter = Some(adapter.sha256());
        }
        // The same noise for every model, so that pictures of one prompt can be compared.
        let drawings: Vec<Drawing<'_>> = questions
            .items
            .iter()
            .zip(0..)
            .map(|(item, number)| Drawing {
                id: &item.id,
                copy: 0,
                skill: item.skill.name(),
                text: &item.text,
                seed: self
                    .run
                    .seed(&format!("eval {}", questions.name), &[number]),
            })
            .collect();
        let model = self.run.recipe.model.to_string_lossy();
        let style = DrawingStyle {
            steps: stage.steps,
            guidance,
            scheduler: stage.scheduler,
            batch_size: stage.batch_size,
            model: &model,
            model_hash: self.hash,
            negative: None,
            size: None,
            adapters: self.adapter.as_slice(),
        };
        let task = format!("{} at {guidance}", self.model.name);
        draw(pipeline, &drawings, &style, folder, &task, observer)
    }
}
