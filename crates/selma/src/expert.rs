//! Training one adapter into a folder, to be continued where it was interrupted.

mod steps;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use selma_diffusion::StableDiffusion;
use selma_durable::{create_folder, write_json};
use selma_lora::{Dtype, Format, Mixing, Mixture};
use selma_train::{
    Denoising, DiffusionDpo, Objective, PairSet, Prefetch, Source, TrainCheckpoints, TrainConfig,
    TrainingSet, ValidTrainConfig,
};
use serde::{Deserialize, Serialize};

use crate::files::{read_json, remove_folder};
use crate::validation::ValidationLog;
use crate::{Pick, Previews, RunObserver, SelmaError, Validation};

/// An adapter to train, or a mixture of adapters.
///
/// Its folder belongs to it: `training.json` there says what the adapter or the mixture is made from.
#[derive(Debug, Clone)]
pub struct Expert<'a> {
    /// What the observer is told.
    pub name: &'a str,
    /// The skills whose data it sees, for the adapter's metadata.
    pub skills: &'a [String],
    /// How it is trained.
    pub config: ValidTrainConfig,
    /// The experts whose weights are trained, instead of an adapter: the mixture as it begins.
    pub mixture: Option<&'a Mixture>,
    /// Data that the training is watched by at every checkpoint, and after the last step, and which of these becomes the adapter.
    pub validation: Option<Validation<'a>>,
    /// Devices beside the pipeline's, over which the shards of a batch are spread ([`Trainer::with_further_devices`](selma_train::Trainer::with_further_devices)).
    pub further_devices: &'a [Device],
    /// Hash of the base's weights, as [`Checkpoint::sha256`](selma_diffusion::Checkpoint::sha256) gives it.
    pub model_hash: &'a str,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// How many checkpoints are kept, the newest. One is for continuing, and is removed when the adapter is finished; several stay.
    pub keep_checkpoints: usize,
    /// Pictures that are drawn now and then.
    pub previews: Option<&'a Previews>,
    /// Threads that make batches ahead, while the network computes. Results do not depend on their number.
    pub prefetch: usize,
    /// Whether `timing.jsonl` says how long each step took and waited for its data.
    pub timing: bool,
    /// Whether the numbers of `metrics.jsonl` are also written for `TensorBoard`, to the folder `tensorboard`.
    pub tensorboard: bool,
}

/// What an adapter is trained on, which decides the objective.
#[derive(Debug, Clone)]
pub enum TrainingData {
    /// Pictures with captions, by [`Denoising`].
    Pictures(TrainingSet),
    /// Pairs of pictures, by [`DiffusionDpo`].
    Pairs(PairSet),
}

impl TrainingData {
    fn sha256(&self) -> String {
        match self {
            Self::Pictures(set) => set.sha256(),
            Self::Pairs(set) => set.sha256(),
        }
    }

    fn pictures(&self) -> Option<(&TrainingSet, usize)> {
        match self {
            Self::Pictures(set) => Some((set, set.len())),
            Self::Pairs(_) => None,
        }
    }

    fn pairs(&self) -> Option<(&PairSet, usize)> {
        match self {
            Self::Pictures(_) => None,
            Self::Pairs(set) => Some((set, set.len())),
        }
    }
}

/// What an objective trains on, and what the training is watched by, with the number of its samples.
struct Sources<'a, S> {
    training: &'a S,
    validation: Option<(&'a S, usize)>,
}

/// What decides an adapter: `training.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Training {
    skills: Vec<String>,
    config: TrainConfig,
    model_sha256: String,
    data_sha256: String,
    /// Of the mixture as it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mixture_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pick: Option<Pick>,
}

impl Expert<'_> {
    /// Name of the finished adapter in its folder.
    pub const ADAPTER: &'static str = "adapter.safetensors";

    /// Name of the file that says what is trained in a folder.
    const TRAINING: &'static str = "training.json";

    /// Name of the finished mixture in its folder.
    pub const MIXTURE: &'static str = "mixture.safetensors";

    /// Name of the file with the weights of each module, as [`Merge::weights_by_module`](selma_lora::Merge::weights_by_module) takes them, beside a mixture
    /// by [`Mixing::Weights`].
    pub const WEIGHTS: &'static str = "weights.json";

    /// Name of the file with the losses on the validation data, one [`ValidationLoss`](crate::ValidationLoss) a line.
    pub const VALIDATION: &'static str = "validation.jsonl";

    /// Name of the folder with the checkpoints from which a training continues.
    pub const CHECKPOINTS: &'static str = "checkpoints";

    /// Whether a folder has a finished adapter or mixture. If it has, a checkpoint that was for continuing alone is removed.
    ///
    /// # Errors
    ///
    /// If the remains cannot be removed.
    pub fn is_finished(folder: &Path) -> Result<bool, SelmaError> {
        let finished = Self::result(folder).is_some();
        if finished && TrainCheckpoints::all(&folder.join(Self::CHECKPOINTS))?.len() < 2 {
            remove_folder(&folder.join(Self::CHECKPOINTS))?;
        }
        Ok(finished)
    }

    /// The finished adapter or mixture of a folder.
    #[must_use]
    pub fn result(folder: &Path) -> Option<PathBuf> {
        let results = [Self::ADAPTER, Self::MIXTURE].map(|name| folder.join(name));
        results.into_iter().find(|path| path.is_file())
    }

    /// Trains until all steps are done and leaves `metrics.jsonl` and `adapter.safetensors`; of a mixture `mixture.safetensors`, and
    /// `weights.json` where its weights are those of the layers.
    ///
    /// While it goes on the folder has `checkpoints`, from the last of which the same call continues; the adapter is the
    /// same bytes then. Where the adapter is finished, nothing is done.
    ///
    /// # Errors
    ///
    /// [`SelmaError::OtherTraining`] if the folder holds a training of other skills, settings, pictures, experts or base,
    /// [`SelmaError::Cancelled`] if the observer stops, errors of training, and of writing.
    pub fn train(
        &self,
        pipeline: &StableDiffusion,
        data: &TrainingData,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        create_folder(folder)?;
        let training = self.begin(data, folder)?;
        if Self::is_finished(folder)? {
            return Ok(());
        }
        let scheduler = &pipeline.scheduler_config;
        match data {
            TrainingData::Pictures(set) => {
                let objective = Denoising::new(scheduler)?.with_snr_gamma(self.config.snr_gamma);
                let sources = Sources {
                    training: set,
                    validation: self.watched(TrainingData::pictures)?,
                };
                self.train_by(&objective, pipeline, &sources, training, folder, observer)
            }
            TrainingData::Pairs(set) => {
                let objective = DiffusionDpo::new(scheduler, self.config.dpo_beta)?;
                let sources = Sources {
                    training: set,
                    validation: self.watched(TrainingData::pairs)?,
                };
                self.train_by(&objective, pipeline, &sources, training, folder, observer)
            }
        }
    }

    /// The validation data, where it is of the kind that is trained on.
    fn watched<S>(
        &self,
        kind: impl Fn(&TrainingData) -> Option<(&S, usize)>,
    ) -> Result<Option<(&S, usize)>, SelmaError> {
        let Some(validation) = self.validation else {
            return Ok(None);
        };
        match kind(validation.data) {
            Some(data) => Ok(Some(data)),
            None => Err(SelmaError::Setting {
                field: "validation".to_owned(),
                expected: "data of the kind that is trained on".to_owned(),
                found: "data of another".to_owned(),
            }),
        }
    }

    fn train_by<O: Objective + Clone, S: Source<O::Batch>>(
        &self,
        objective: &O,
        pipeline: &StableDiffusion,
        sources: &Sources<'_, S>,
        training: Training,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let checkpoints = folder.join(Self::CHECKPOINTS);
        let mut trainer = self.trainer(objective.clone(), pipeline, &checkpoints)?;
        // Not before it is known to be possible: what cannot be trained leaves the folder to what can.
        if !folder.join(Self::TRAINING).is_file() {
            write_json(&folder.join(Self::TRAINING), &training)?;
        }
        std::thread::scope(|scope| {
            let feed = Prefetch::start(scope, sources.training, &trainer, self.prefetch);
            let validation = sources.validation;
            self.steps(&mut trainer, &feed, validation, pipeline, folder, observer)
        })?;
        let mut picked = Vec::new();
        if let Some(validation) = self.validation {
            let best = ValidationLog::open(folder)?.best(trainer.step_count());
            let best = best
                .filter(|best| validation.pick == Pick::Best && best.step != trainer.step_count());
            if let Some(best) = best {
                trainer = self.resumed(objective.clone(), pipeline, &checkpoints, best.step)?;
            }
            picked.push(("selma.pick", validation.pick.name().to_owned()));
        }
        let notes = [
            ("selma.skills", self.skills.join(",")),
            ("selma.steps", trainer.step_count().to_string()),
            ("selma.seed", self.config.seed.to_string()),
            ("selma.model_sha256", training.model_sha256),
            ("selma.data_sha256", training.data_sha256),
        ];
        let notes = notes.into_iter().chain(picked);
        let notes = notes.map(|(key, value)| (key.to_owned(), value));
        if let Some(mut mixture) = trainer.mixture()? {
            mixture.metadata.extend(notes);
            if mixture.mixing == Mixing::Weights {
                let weights = mixture.weights_by_module()?;
                write_json(&folder.join(Self::WEIGHTS), &weights)?;
            }
            mixture.save(folder.join(Self::MIXTURE))?;
        } else {
            let mut adapter = trainer.adapter()?;
            adapter.metadata.extend(notes);
            adapter.save(folder.join(Self::ADAPTER), Format::Diffusers, Dtype::F32)?;
        }
        if self.keep_checkpoints < 2 {
            // The best one, too: it is the adapter.
            remove_folder(&checkpoints)?;
        }
        Self::is_finished(folder).map(drop)
    }

    /// What is trained here, if nothing else was begun here before.
    fn begin(&self, data: &TrainingData, folder: &Path) -> Result<Training, SelmaError> {
        let training = Training {
            skills: self.skills.to_vec(),
            config: (*self.config).clone(),
            model_sha256: self.model_hash.to_owned(),
            data_sha256: data.sha256(),
            mixture_sha256: self.mixture.map(Mixture::sha256),
            validation_sha256: self.validation.map(|validation| validation.data.sha256()),
            pick: self.validation.map(|validation| validation.pick),
        };
        let path = folder.join(Self::TRAINING);
        if path.is_file() {
            if read_json::<Training>(&path)? != training {
                return Err(SelmaError::OtherTraining {
                    path: folder.to_owned(),
                });
            }
        } else if let Some(result) = Self::result(folder) {
            return Err(SelmaError::Damaged {
                path,
                reason: format!("it is missing beside {}", result.display()),
            });
        }
        Ok(training)
    }
}
