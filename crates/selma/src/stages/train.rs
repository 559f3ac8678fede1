//! Stage 3: one expert a skill, one adapter on all data, and what else the recipe trains.

use selma_diffusion::StableDiffusion;
use selma_train::{EncodingCache, TrainError};

use super::held_back::Part;
use super::images::load_once;
use super::merge::load;
use super::pictures::training_data;
use super::prompts::finished;
use crate::adapters::PlannedTraining;
use crate::files::remove_folder;
use crate::{DataEncoder, Expert, Run, RunObserver, SelmaError, TrainingData, Validation};

/// Threads that make batches ahead.
const PREFETCH: usize = 1;

/// Trains every adapter that is not finished. What is encoded for one is read by those after it, and removed when all are finished.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let folder = run.layout.cache();
    let (mut pipeline, mut cache) = (None, None);
    let model_hash = run.model_hash()?;
    let trainings = run.trainings.iter();
    for training in trainings.filter(|training| wanted(&training.name)) {
        let before = Expert::is_finished(&run.layout.expert(&training.name))?;
        if !before {
            let pipeline = load_once(&mut pipeline, run, Run::checkpoint)?;
            let cache = match &mut cache {
                Some(cache) => cache,
                none => none.insert(EncodingCache::open(&folder, pipeline)?),
            };
            train(run, training, pipeline, cache, model_hash, observer)?;
        }
        finished(observer, &training.name, before)?;
    }
    let is_there = |training: &PlannedTraining| {
        let folder = run.layout.expert(&training.name);
        Expert::result(&folder).is_some()
    };
    // Other processes may be training.
    if run.trainings.iter().all(is_there) {
        remove_folder(&folder)?;
    }
    Ok(())
}

fn train(
    run: &Run,
    training: &PlannedTraining,
    pipeline: &StableDiffusion,
    cache: &EncodingCache,
    model_hash: &str,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let encoder = DataEncoder {
        pipeline,
        config: &training.config,
        cache: Some(cache),
        task: &training.name,
    };
    let data = training_data(run, training, Part::Training, encoder, observer)?;
    let validation = validation_data(run, training, encoder, observer)?;
    let mixture = training.mixture.as_ref();
    let mixture = mixture.map(|(experts, kind)| {
        let experts = load(run, experts)?;
        kind.mixed(&experts, training.config.seed)
    });
    let mixture = mixture.transpose()?;
    let expert = Expert {
        name: &training.name,
        skills: &training.skills,
        config: training.config.clone(),
        mixture: mixture.as_ref(),
        validation: validation.as_ref().map(|data| Validation {
            data,
            pick: run.recipe.train.pick,
        }),
        further_devices: &[],
        model_hash,
        checkpoint_every: run.recipe.train.checkpoint_every,
        keep_checkpoints: 1,
        previews: None,
        prefetch: PREFETCH,
        timing: false,
        tensorboard: false,
    };
    let folder = run.layout.expert(&training.name);
    expert.train(pipeline, &data, &folder, observer)
}

/// What a training is watched by: of the prompts that are held back, if there are some, what it would be trained on.
fn validation_data(
    run: &Run,
    training: &PlannedTraining,
    encoder: DataEncoder<'_>,
    observer: &mut RunObserver<'_>,
) -> Result<Option<TrainingData>, SelmaError> {
    let count = run.recipe.train.validation;
    if count == 0 {
        return Ok(None);
    }
    let config = training.config.for_validation();
    let encoder = DataEncoder {
        config: &config,
        ..encoder
    };
    match training_data(run, training, Part::Validation, encoder, observer) {
        Err(SelmaError::Train(TrainError::NoData)) => Err(SelmaError::Setting {
            field: "train.validation".to_owned(),
            expected: format!("enough prompts that {} has pictures of some", training.name),
            found: count.to_string(),
        }),
        data => data.map(Some),
    }
}
