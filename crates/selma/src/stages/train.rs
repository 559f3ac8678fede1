//! Stage 3: one expert a skill, one adapter on all data, and what else the recipe trains.

use selma_diffusion::StableDiffusion;

use super::images::load_once;
use super::pictures::training_data;
use super::prompts::finished;
use crate::adapters::PlannedTraining;
use crate::{Expert, Run, RunObserver, SelmaError};

/// Trains every adapter that is not finished.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let mut pipeline = None;
    let model_hash = run.model_hash()?;
    let trainings = run.trainings.iter();
    for training in trainings.filter(|training| wanted(&training.name)) {
        let before = Expert::is_finished(&run.layout.expert(&training.name))?;
        if !before {
            let pipeline = load_once(&mut pipeline, run, Run::checkpoint)?;
            train(run, training, pipeline, model_hash, observer)?;
        }
        finished(observer, &training.name, before)?;
    }
    Ok(())
}

fn train(
    run: &Run,
    training: &PlannedTraining,
    pipeline: &StableDiffusion,
    model_hash: &str,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let data = training_data(run, training, pipeline, observer)?;
    let expert = Expert {
        name: &training.name,
        skills: &training.skills,
        config: training.config.clone(),
        model_hash,
        checkpoint_every: run.recipe.train.checkpoint_every,
        keep_checkpoints: 1,
        previews: None,
        tensorboard: false,
    };
    let folder = run.layout.expert(&training.name);
    expert.train(pipeline, &data, &folder, observer)
}
