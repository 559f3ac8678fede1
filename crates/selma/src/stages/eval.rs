//! Stage 5: all models draw prompts that none was trained on, and are asked about their pictures.

use std::path::Path;

use selma_dataset::METADATA_FILE;
use selma_diffusion::schedulers::build;
use selma_diffusion::{DiffusionError, StableDiffusion};
use selma_eval::{
    CachedVqa, ChatPrompt, EvalError, EvalOptions, EvalResult, ImageFolder, Vqa, evaluate,
};
use selma_lora::{Adapter, Mixture};

use super::images::load_once;
use super::prompts::finished;
use super::questions::{self, Questions};
use super::scores::{self, Scorers};
use super::selection;
use crate::draw::{Drawing, DrawingStyle, draw};
use crate::{Expert, Model, Run, RunEvent, RunObserver, Selector, SelmaError};

/// Name of the branches of the model that is evaluated.
const BRANCH: &str = "evaluated";

/// Name of the file of a judge's answers about a model's pictures.
pub(crate) const ANSWERS: &str = "answers.jsonl";

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
    let questions = questions::test(run)?;
    questions::check_unchanged(run, &questions)?;
    questions::validation(run)?;
    recipe.eval.judge.check(run, "eval", recipe.eval.jpeg)?;
    if let Some(judge) = recipe.selection.asked() {
        judge.check(run, "selection", recipe.selection.jpeg)?;
    }
    if let Selector::Scorer(settings) = &recipe.selection.judge {
        settings.unchanged(run, selection::SCORER)?;
    }
    Scorers::new(run).map(drop)
}

/// Draws and judges the pictures of every model.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let stage = &run.recipe.eval;
    let (test, validation) = (questions::test(run)?, questions::validation(run)?);
    questions::check_unchanged(run, &test)?;
    stage.judge.check(run, "eval", stage.jpeg)?;
    let mut scorers = Scorers::new(run)?;
    let (mut pipeline, mut vqa) = (None, None);
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
        // Also sees that the model is the one that everything was made with.
        let hash = match model.is_teacher {
            true => run.teacher_hash()?,
            false => run.model_hash()?.to_owned(),
        };
        let mut alone = None;
        let mut evaluation = Evaluation {
            run,
            model: &model,
            hash: &hash,
            vqa: &mut vqa,
            pipeline: match model.is_teacher {
                true => &mut alone,
                false => &mut pipeline,
            },
            adapter: None,
            before: &mut before,
        };
        if let (Some(validation), true) = (&validation, stage.guidances.len() > 1) {
            for &guidance in &stage.guidances {
                evaluation.result(validation, guidance, observer)?;
            }
        }
        let chosen = chosen_guidance(run, &model)?;
        for &guidance in &stage.guidances {
            if stage.curve || guidance == chosen {
                evaluation.result(&test, guidance, observer)?;
            }
        }
        let attached = evaluation.adapter.is_some();
        if let Some(pipeline) = pipeline.as_mut().filter(|_| attached) {
            pipeline.detach(BRANCH);
        }
        before &= !scorers.score(run, &model, chosen, observer)?;
        finished(observer, &model.name, before)?;
    }
    Ok(())
}

/// Whether a model's pictures of the test prompts are judged and scored.
pub(crate) fn is_finished(run: &Run, model: &Model) -> bool {
    let chosen = chosen_guidance(run, model);
    chosen.is_ok_and(|guidance| {
        let result = result_path(run, model, "test", guidance);
        result.is_file() && scores::are_finished(run, model, guidance)
    })
}

/// Refuses a result for which nobody answered, which is no score.
fn some_answered(result: &EvalResult) -> Result<(), SelmaError> {
    if result.unanswered < result.questions {
        return Ok(());
    }
    let mut asked = result.items.iter().flat_map(|item| &item.questions);
    let failure = asked.find_map(|question| question.failure.clone());
    Err(SelmaError::Eval(EvalError::Vqa {
        model: result.vqa.clone(),
        message: failure.unwrap_or_else(|| "no question was answered".to_owned()),
    }))
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

/// Draws and judges one model.
struct Evaluation<'a> {
    run: &'a Run,
    model: &'a Model,
    hash: &'a str,
    /// The judge, once it is loaded.
    vqa: &'a mut Option<Box<dyn Vqa>>,
    pipeline: &'a mut Option<StableDiffusion>,
    /// Hash of the adapter, once it is on the pipeline.
    adapter: Option<String>,
    /// Whether everything asked for so far was finished before.
    before: &'a mut bool,
}

impl Evaluation<'_> {
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
        let stage = &self.run.recipe.eval;
        let vqa = match self.vqa.take() {
            Some(vqa) => vqa,
            None => (stage.judge).vqa(self.run, "eval", ChatPrompt::YesNo, stage.jpeg)?,
        };
        let result = if stage.judge.is_oracle() {
            self.ask(questions, guidance, &*vqa, &folder, observer)?
        } else {
            // What a judge has answered is not asked for again.
            let path = self.run.layout.eval_of(&self.model.name);
            let cached = CachedVqa::open(&*vqa, &path.join(ANSWERS))?;
            self.ask(questions, guidance, &cached, &folder, observer)?
        };
        *self.vqa = Some(vqa);
        Ok(result.save(&path)?)
    }

    fn ask(
        &self,
        questions: &Questions,
        guidance: f64,
        vqa: &dyn Vqa,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<EvalResult, SelmaError> {
        let task = format!("{} at {guidance}", self.model.name);
        let stage = &self.run.recipe.eval;
        let options = EvalOptions {
            aggregation: stage.aggregation,
            answer_match: stage.judge.answer_match(),
            bootstrap: stage.bootstrap,
            ..EvalOptions::default()
        };
        let images = ImageFolder::new(folder);
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
        let result = evaluate(name, set, &images, vqa, &options, &mut observe)?;
        some_answered(&result)?;
        Ok(result)
    }

    fn draw(
        &mut self,
        questions: &Questions,
        guidance: f64,
        folder: &std::path::Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let (run, stage) = (self.run, &self.run.recipe.eval);
        let checkpoint = match self.model.is_teacher {
            true => Run::teacher,
            false => Run::checkpoint,
        };
        let pipeline = load_once(self.pipeline, run, checkpoint)?;
        if let (Some(path), None) = (&self.model.adapter, &self.adapter) {
            self.adapter = Some(if path.ends_with(Expert::MIXTURE) {
                let mixture = Mixture::load(path)?;
                pipeline.attach(&mixture, BRANCH, 1.0)?;
                mixture.sha256()
            } else {
                let adapter = Adapter::load(path)?;
                pipeline.attach(&adapter, BRANCH, 1.0)?;
                adapter.sha256()
            });
        }
        // The same noise for every model, so that pictures of one prompt can be compared.
        let purpose = format!("eval {}", questions.name);
        let drawings: Vec<Drawing<'_>> = questions
            .set
            .items()
            .iter()
            .zip(0..)
            .map(|(item, number)| Drawing {
                id: &item.id,
                copy: 0,
                skill: &item.group,
                text: &item.text,
                seed: run.seed(&purpose, &[number]),
            })
            .collect();
        let teacher = run.recipe.images.model.as_ref();
        let teacher = teacher.filter(|_| self.model.is_teacher);
        let model = teacher.unwrap_or(&run.recipe.model).to_string_lossy();
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
