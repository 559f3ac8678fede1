//! Stage 3: one expert a skill, and one adapter on all data.

use image::RgbImage;
use selma_dataset::{Dataset, METADATA_FILE, Pictures};
use selma_diffusion::StableDiffusion;
use selma_train::{TrainConfig, ValidTrainConfig};

use super::images::load_once;
use super::prompts::finished;
use crate::recipe::FILTERED;
use crate::run::UNION;
use crate::{Expert, Run, RunObserver, SelmaError, TrainingData, encode_datasets};

/// Trains every expert that is not finished.
pub(crate) fn run(run: &Run, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
    let mut pipeline = None;
    let model_hash = run.model_hash()?;
    for job in jobs(run)? {
        let before = Expert::is_finished(&run.layout.expert(&job.name))?;
        if !before {
            let pipeline = load_once(&mut pipeline, run)?;
            train(run, &job, pipeline, model_hash, observer)?;
        }
        finished(observer, &job.name, before)?;
    }
    Ok(())
}

/// One adapter to train.
struct Job {
    name: String,
    skills: Vec<String>,
    config: ValidTrainConfig,
    /// Only on faultless pictures.
    filtered: bool,
}

fn jobs(run: &Run) -> Result<Vec<Job>, SelmaError> {
    let stage = &run.recipe.train;
    let config = |factor: usize| {
        TrainConfig {
            steps: stage.settings.steps * factor,
            // One seed for all, so that all experts start from the same factors.
            seed: run.seed("train", &[]),
            ..stage.settings.clone()
        }
        .validate()
    };
    let names: Vec<String> = run.skills.iter().map(|skill| skill.name.clone()).collect();
    let mut jobs = Vec::new();
    for &arm in stage.arms() {
        let filtered = arm == FILTERED;
        for name in &names {
            jobs.push(Job {
                name: format!("{name}{arm}"),
                skills: vec![name.clone()],
                config: config(1)?,
                filtered,
            });
        }
        if !filtered && stage.union {
            jobs.push(Job {
                name: UNION.to_owned(),
                skills: names.clone(),
                config: config(names.len())?,
                filtered,
            });
        }
    }
    Ok(jobs)
}

fn train(
    run: &Run,
    job: &Job,
    pipeline: &StableDiffusion,
    model_hash: &str,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let keep = |image: &RgbImage, text: &str| Ok(!job.filtered || is_faultless(image, text)?);
    let datasets = datasets(run, job)?;
    let pictures: Vec<&dyn Pictures> = datasets.iter().map(|data| data as &dyn Pictures).collect();
    let set = encode_datasets(pipeline, &job.config, &pictures, &keep, &job.name, observer)?;
    let expert = Expert {
        name: &job.name,
        skills: &job.skills,
        config: job.config.clone(),
        mixture: None,
        model_hash,
        checkpoint_every: run.recipe.train.checkpoint_every,
        keep_checkpoints: 1,
        previews: None,
        tensorboard: false,
    };
    let folder = run.layout.expert(&job.name);
    expert.train(pipeline, &TrainingData::Pictures(set), &folder, observer)
}

/// The pictures of a job's skills.
fn datasets(run: &Run, job: &Job) -> Result<Vec<Dataset>, SelmaError> {
    let open = |skill: &String| {
        let folder = run.layout.images_of(skill);
        if !folder.join(METADATA_FILE).is_file() {
            return Err(SelmaError::MissingStage {
                path: folder.join(METADATA_FILE),
                stage: "images",
            });
        }
        Ok(Dataset::open(&folder)?)
    };
    job.skills.iter().map(open).collect()
}

/// Whether the oracle says yes to every question that the caption implies; captions outside the miniature's language
/// have none, and are not chosen.
fn is_faultless(image: &RgbImage, text: &str) -> Result<bool, SelmaError> {
    let Some(spec) = selma_mini::parse_caption(text) else {
        return Ok(false);
    };
    let questions = selma_mini::questions("item", text, &spec);
    let questions: Vec<&str> = questions.iter().map(|row| row.question.as_str()).collect();
    let answers = selma_eval::Vqa::answer(&selma_mini::OracleVqa, image, &questions)?;
    Ok(answers.iter().all(|answer| answer == "yes"))
}
