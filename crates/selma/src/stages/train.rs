//! Stage 3: one expert a skill, and one adapter on all data.

use std::ops::ControlFlow;

use image::RgbImage;
use selma_dataset::durable::{Journal, create_folder};
use selma_dataset::{Dataset, METADATA_FILE};
use selma_diffusion::StableDiffusion;
use selma_lora::{Dtype, Format};
use selma_train::{Denoising, TrainConfig, TrainError, Trainer, TrainingSet, ValidTrainConfig};
use serde::{Deserialize, Serialize};

use super::images::load_once;
use super::prompts::finished;
use crate::run::{FILTERED, UNION};
use crate::{Run, RunEvent, RunObserver, SelmaError};

/// Trains every expert that is not finished.
pub(crate) fn run(run: &Run, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
    let mut pipeline = None;
    for job in jobs(run)? {
        let before = run.layout.adapter_of(&job.name).is_file();
        if !before {
            let pipeline = load_once(&mut pipeline, run)?;
            train(run, &job, pipeline, observer)?;
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
    let arms = if stage.filtered {
        &[false, true][..]
    } else {
        &[false][..]
    };
    for &filtered in arms {
        for name in &names {
            jobs.push(Job {
                name: format!("{name}{}", if filtered { FILTERED } else { "" }),
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

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    step: usize,
    loss: f32,
    grad_norm: Option<f32>,
}

fn train(
    run: &Run,
    job: &Job,
    pipeline: &StableDiffusion,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let folder = run.layout.expert(&job.name);
    create_folder(&folder)?;
    let set = TrainingSet::encode(pipeline, samples(run, job)?)?;
    let checkpoint = folder.join("checkpoint.safetensors");
    let objective = Denoising::new(&pipeline.scheduler_config)?;
    let unet = pipeline.unet.clone();
    let (scheduler, config) = (&pipeline.scheduler_config, job.config.clone());
    let device = pipeline.device();
    let mut trainer = if checkpoint.is_file() {
        Trainer::resume(unet, scheduler, objective, config, &checkpoint, device)?
    } else {
        Trainer::new(unet, scheduler, objective, config, device)?
    };
    let (mut metrics, _) = Journal::<Metrics>::open(folder.join("metrics.jsonl"))?;
    let mut pending: Vec<Metrics> = Vec::new();
    let every = run.recipe.train.checkpoint_every;
    let mut failure = None;
    let result = trainer.run(&set, Some((&checkpoint, every)), &mut |progress| {
        pending.push(Metrics {
            step: progress.step,
            loss: progress.loss,
            grad_norm: progress.grad_norm,
        });
        if progress.step.is_multiple_of(every) || progress.step == progress.steps {
            if let Err(error) = metrics.append_all(&pending) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            pending.clear();
        }
        observer(RunEvent::Progress {
            task: &job.name,
            done: progress.step,
            total: progress.steps,
            unit: "steps",
            note: Some(("loss", f64::from(progress.loss))),
        })
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    result.map_err(|error| match error {
        TrainError::Cancelled { .. } => SelmaError::Cancelled,
        other => other.into(),
    })?;
    let mut adapter = trainer.adapter()?;
    adapter
        .metadata
        .insert("selma.skills".to_owned(), job.skills.join(","));
    adapter
        .metadata
        .insert("selma.steps".to_owned(), trainer.step_count().to_string());
    let path = run.layout.adapter_of(&job.name);
    adapter.save(&path, Format::Diffusers, Dtype::F32)?;
    if checkpoint.is_file() {
        std::fs::remove_file(&checkpoint).map_err(|source| SelmaError::Io {
            action: "remove",
            path: checkpoint.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Pictures and captions of a job's skills.
fn samples(
    run: &Run,
    job: &Job,
) -> Result<Vec<Result<(RgbImage, String), TrainError>>, SelmaError> {
    let mut samples = Vec::new();
    for skill in &job.skills {
        let folder = run.layout.images_of(skill);
        if !folder.join(METADATA_FILE).is_file() {
            return Err(SelmaError::MissingStage {
                path: folder.join(METADATA_FILE),
                stage: "images",
            });
        }
        let data = Dataset::open(&folder)?;
        for (index, sample) in data.iter().enumerate() {
            let image = data.image(index)?;
            if !job.filtered || is_faultless(&image, &sample.text)? {
                samples.push(Ok((image, sample.text.clone())));
            }
        }
    }
    Ok(samples)
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
