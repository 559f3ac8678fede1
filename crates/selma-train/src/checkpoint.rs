//! Everything that a training needs to go on as if it had not been interrupted.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::Dtype as Stored;
use safetensors::tensor::TensorView;
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::schedulers::SchedulerConfig;
use selma_diffusion::weights::Weights;
use selma_durable::{AtomicFolder, atomic_write, create_folder, write_json};
use selma_lora::{Adapter, Dtype, Format, LoraModule, Mixture};
use serde::{Deserialize, Serialize};

use crate::factors::{Factors, host};
use crate::{Objective, TrainConfig, TrainError, Trainer, ValidTrainConfig};

/// The factors, in diffusers' format.
const ADAPTER: &str = "adapter.safetensors";
/// The mixture, where one is trained.
const MIXTURE: &str = "mixture.safetensors";
/// The optimizer's moments.
const OPTIMIZER: &str = "optimizer.safetensors";
/// [`State`].
const STATE: &str = "state.json";
const PREFIX: &str = "step-";

/// Where a training keeps checkpoints, a folder for each: `step-000100` with the adapter in diffusers' format or the mixture, the optimizer's moments, and `state.json`. A folder appears whole
/// or not at all.
#[derive(Debug, Clone, Copy)]
pub struct TrainCheckpoints<'a> {
    /// The folder that they lie in.
    pub folder: &'a Path,
    /// Steps between two of them.
    pub every: usize,
    /// How many are kept: the newest.
    pub keep: usize,
}

/// What is neither factors nor moments. All that is random, and the place in the data, follow from the seed and the step.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    step: usize,
    config: TrainConfig,
}

impl TrainCheckpoints<'_> {
    /// The checkpoints in a folder, by their steps; none if the folder is not there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn all(folder: &Path) -> Result<Vec<(usize, PathBuf)>, TrainError> {
        let unreadable = |source| TrainError::Io {
            action: "read",
            path: folder.to_owned(),
            source,
        };
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let step = name.and_then(|name| name.strip_prefix(PREFIX));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The last checkpoint in a folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn latest(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
        Ok(Self::all(folder)?.pop().map(|(_, path)| path))
    }

    /// Whether there is one after so many steps.
    #[must_use]
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.every.max(1))
    }

    /// Writes a checkpoint, then removes those that are too many.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn save<O: Objective>(&self, trainer: &Trainer<O>) -> Result<(), TrainError> {
        self.save_beside(trainer, None)
    }

    /// As [`save`](Self::save), and keeps the checkpoint of one more step where there is one, which is not counted.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn save_beside<O: Objective>(
        &self,
        trainer: &Trainer<O>,
        other: Option<usize>,
    ) -> Result<(), TrainError> {
        let path = self.folder.join(format!("{PREFIX}{:06}", trainer.step));
        if !path.exists() {
            create_folder(self.folder)?;
            trainer.save_checkpoint(&path)?;
        }
        let all = Self::all(self.folder)?;
        let too_many = all.len().saturating_sub(self.keep.max(1));
        let too_many = all.into_iter().take(too_many);
        for (_, path) in too_many.filter(|(step, _)| Some(*step) != other) {
            fs::remove_dir_all(&path).map_err(|source| TrainError::Io {
                action: "remove",
                path,
                source,
            })?;
        }
        Ok(())
    }
}

impl<O: Objective> Trainer<O> {
    /// Writes factors, optimizer state, step and settings to a new folder, all numbers in `F32`, so that a resumed training makes the
    /// same bytes as an uninterrupted one.
    ///
    /// # Errors
    ///
    /// If the folder exists or cannot be written. Nothing is left of it then.
    pub fn save_checkpoint(&self, path: &Path) -> Result<(), TrainError> {
        let unwritable = |source| TrainError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        };
        let folder = AtomicFolder::create(path).map_err(unwritable)?;
        let file = |name: &str| folder.path().join(name);
        match self.mixture()? {
            Some(mixture) => mixture.save(file(MIXTURE))?,
            None => {
                let adapter = self.adapter()?;
                adapter.save(file(ADAPTER), Format::Diffusers, Dtype::F32)?;
            }
        }
        atomic_write(&file(OPTIMIZER), &self.moments(path)?)?;
        let state = State {
            step: self.step,
            config: (*self.config).clone(),
        };
        write_json(&file(STATE), &state)?;
        folder.commit().map_err(unwritable)
    }

    /// The optimizer's moments as a safetensors file: none before the first step.
    fn moments(&self, path: &Path) -> Result<Vec<u8>, TrainError> {
        let mut tensors: Vec<(String, usize, Vec<u8>)> = Vec::new();
        for factor in &self.factors.all {
            let Some(state) = &factor.state else {
                continue;
            };
            let moments = [&state.momentum.moment_1, &state.momentum.moment_2];
            for (number, tensor) in (1..).zip(moments) {
                let values = host(tensor.clone())?;
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                let key = format!("{}.moment_{number}", factor.name);
                tensors.push((key, values.len(), bytes.collect()));
            }
        }
        let failed = |error: safetensors::SafeTensorError| damaged(path, error.to_string());
        let mut views = Vec::with_capacity(tensors.len());
        for (name, count, bytes) in &tensors {
            let view = TensorView::new(Stored::F32, vec![*count], bytes);
            views.push((name, view.map_err(failed)?));
        }
        safetensors::serialize(views, None).map_err(failed)
    }

    /// Goes on from a folder of [`save_checkpoint`](Self::save_checkpoint).
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`] if it is damaged, or was written by a training with other settings.
    pub fn resume(
        unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        path: &Path,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let wrong = |reason: String| damaged(path, reason);
        let text = read_file(&path.join(STATE))?;
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| damaged(&path.join(STATE), error.to_string()))?;
        if state.config != *config {
            return Err(wrong(
                "it belongs to a training with other settings".to_owned(),
            ));
        }
        let mixture = path.join(MIXTURE);
        let mut trainer = if mixture.is_file() {
            let mixture = Mixture::load(mixture)?;
            Self::from_mixture(unet, scheduler, objective, config, &mixture, device)?
        } else {
            let mut modules = Vec::new();
            for (name, module) in Adapter::load(path.join(ADAPTER))?.modules {
                modules.push((name, LoraModule::new(module.a, module.b, config.alpha)?));
            }
            let adapter = Adapter::new(modules);
            Self::from_adapter(unet, scheduler, objective, config, &adapter, device)?
        };
        let moments = Weights::open(path.join(OPTIMIZER))?;
        for factor in &mut trainer.factors.all {
            let moment = |number| moments.require(&format!("{}.moment_{number}", factor.name));
            if state.step > 0 {
                let ((first, _), (second, _)) = (moment(1)?, moment(2)?);
                Factors::restore(factor, state.step, first, second, device);
            }
        }
        trainer.step = state.step;
        Ok(trainer)
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, TrainError> {
    fs::read(path).map_err(|source| TrainError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// What is wrong with a checkpoint.
pub(crate) fn damaged(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    }
}
