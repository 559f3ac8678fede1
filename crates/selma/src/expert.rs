//! Training one adapter into a folder, to be continued where it was interrupted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use selma_diffusion::StableDiffusion;
use selma_durable::{create_folder, remove_temporaries, write_json};
use selma_lora::{Dtype, Format, Mixing, Mixture};
use selma_train::{
    Denoising, DiffusionDpo, Feed, Objective, PairSet, Prefetch, Source, TrainCheckpoints,
    TrainConfig, Trainer, TrainingSet, ValidTrainConfig,
};
use serde::{Deserialize, Serialize};

use crate::files::{read_json, remove_folder};
use crate::step_log::StepLog;
use crate::{Previews, RunEvent, RunObserver, SelmaError};

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
                self.train_by(objective, pipeline, set, training, folder, observer)
            }
            TrainingData::Pairs(set) => {
                let objective = DiffusionDpo::new(scheduler, self.config.dpo_beta)?;
                self.train_by(objective, pipeline, set, training, folder, observer)
            }
        }
    }

    fn train_by<O: Objective>(
        &self,
        objective: O,
        pipeline: &StableDiffusion,
        source: &impl Source<O::Batch>,
        training: Training,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let mut trainer = self.trainer(objective, pipeline, &folder.join(Self::CHECKPOINTS))?;
        // Not before it is known to be possible: what cannot be trained leaves the folder to what can.
        if !folder.join(Self::TRAINING).is_file() {
            write_json(&folder.join(Self::TRAINING), &training)?;
        }
        std::thread::scope(|scope| {
            let feed = Prefetch::start(scope, source, &trainer, self.prefetch);
            self.steps(&mut trainer, &feed, pipeline, folder, observer)
        })?;
        let notes = [
            ("selma.skills", self.skills.join(",")),
            ("selma.steps", trainer.step_count().to_string()),
            ("selma.seed", self.config.seed.to_string()),
            ("selma.model_sha256", training.model_sha256),
            ("selma.data_sha256", training.data_sha256),
        ];
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
        Self::is_finished(folder).map(drop)
    }

    /// Takes all steps that are left.
    fn steps<O: Objective>(
        &self,
        trainer: &mut Trainer<O>,
        feed: &impl Feed<O::Batch>,
        pipeline: &StableDiffusion,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let mut log = StepLog::open(folder, trainer.step_count())?;
        if self.timing {
            log = log.with_timing(folder)?;
        }
        if self.tensorboard {
            log = log.with_tensorboard(folder)?;
        }
        let checkpoints = folder.join(Self::CHECKPOINTS);
        let kept = TrainCheckpoints {
            folder: &checkpoints,
            every: self.checkpoint_every,
            keep: self.keep_checkpoints,
        };
        let (mut whole, mut waited) = (Duration::ZERO, Duration::ZERO);
        while !trainer.is_finished() {
            let progress = trainer.step(feed)?;
            log.push(&progress);
            let time = progress.time.unwrap_or_default();
            whole += time.whole;
            waited += time.waited;
            let flow = observer(RunEvent::Progress {
                task: self.name,
                done: progress.step,
                total: progress.steps,
                unit: "steps",
                note: Some(("loss", f64::from(progress.loss))),
            });
            let due = flow.is_break() || kept.is_due(progress.step);
            // What is recorded is never behind the checkpoint.
            if due || trainer.is_finished() {
                log.write()?;
            }
            if due {
                kept.save(trainer)?;
            }
            if let Some(previews) = self.previews
                && (previews.is_due(progress.step) || trainer.is_finished())
            {
                previews.draw(pipeline, trainer.model(), folder, progress.step)?;
            }
            if flow.is_break() {
                return Err(SelmaError::Cancelled);
            }
        }
        let task = self.name;
        // All is done by now: what the observer answers stops nothing.
        let _ = observer(RunEvent::Waited {
            task,
            waited,
            whole,
        });
        Ok(())
    }

    /// What is trained here, if nothing else was begun here before.
    fn begin(&self, data: &TrainingData, folder: &Path) -> Result<Training, SelmaError> {
        let training = Training {
            skills: self.skills.to_vec(),
            config: (*self.config).clone(),
            model_sha256: self.model_hash.to_owned(),
            data_sha256: data.sha256(),
            mixture_sha256: self.mixture.map(Mixture::sha256),
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

    fn trainer<O: Objective>(
        &self,
        objective: O,
        pipeline: &StableDiffusion,
        checkpoints: &Path,
    ) -> Result<Trainer<O>, SelmaError> {
        let scheduler = &pipeline.scheduler_config;
        let (unet, config) = (pipeline.unet.clone(), self.config.clone());
        let device = pipeline.device();
        if checkpoints.is_dir() {
            remove_temporaries(checkpoints)?;
        }
        let last = TrainCheckpoints::latest(checkpoints)?;
        Ok(match (last, self.mixture) {
            (Some(last), _) => Trainer::resume(unet, scheduler, objective, config, &last, device)?,
            (None, Some(mixture)) => {
                Trainer::from_mixture(unet, scheduler, objective, config, mixture, device)?
            }
            (None, None) => Trainer::new(unet, scheduler, objective, config, device)?,
        })
    }
}
