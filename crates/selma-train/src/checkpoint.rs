//! Everything that a training needs to go on as if it had not been interrupted.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::schedulers::SchedulerConfig;
use selma_diffusion::weights::Weights;
use selma_durable::atomic_write;
use selma_lora::{Adapter, LoraModule};

use crate::factors::{Factors, host};
use crate::{Objective, TrainError, Trainer, ValidTrainConfig};

/// Key of the metadata that holds the settings.
const CONFIG: &str = "selma.train_config";
/// Key of the metadata that holds the number of steps done.
pub(crate) const STEP: &str = "selma.step";

impl<O: Objective> Trainer<O> {
    /// Writes factors, optimizer state, step and settings to one safetensors file, all in `F32`, so that a resumed
    /// training makes the same bytes as an uninterrupted one. The file appears whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save_checkpoint(&mut self, path: &Path) -> Result<(), TrainError> {
        let adapter = self.adapter()?;
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, module) in &adapter.modules {
            for (letter, factor) in [("a", &module.a), ("b", &module.b)] {
                let values: Vec<f32> = factor.iter().copied().collect();
                tensors.push((
                    format!("{name}.{letter}"),
                    factor.shape().to_vec(),
                    bytes(&values),
                ));
            }
        }
        for factor in &self.factors.all {
            if let Some(state) = &factor.state {
                for (moment, tensor) in
                    [(1, &state.momentum.moment_1), (2, &state.momentum.moment_2)]
                {
                    let values = host(tensor.clone())?;
                    let key = format!("{}.moment_{moment}", factor.name);
                    tensors.push((key, vec![values.len()], bytes(&values)));
                }
            }
        }
        let failed = |error: safetensors::SafeTensorError| damaged(path, error.to_string());
        let mut views = Vec::with_capacity(tensors.len());
        for (name, shape, bytes) in &tensors {
            views.push((
                name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?,
            ));
        }
        let metadata: HashMap<String, String> = [
            (CONFIG.to_owned(), settings(&self.config)),
            (STEP.to_owned(), self.step.to_string()),
        ]
        .into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
        Ok(atomic_write(path, &file)?)
    }

    /// Goes on from a file of [`save_checkpoint`](Self::save_checkpoint).
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`] if the file is damaged, or was written by a training with other settings.
    pub fn resume(
        unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        path: &Path,
        device: &burn::tensor::Device,
    ) -> Result<Self, TrainError> {
        let wrong = |reason| damaged(path, reason);
        let (_, metadata) = read(path)?;
        if metadata.get(CONFIG) != Some(&settings(&config)) {
            return Err(wrong(
                "it belongs to a training with other settings".to_owned(),
            ));
        }
        let step = step(&metadata, path)?;
        let weights = Weights::open(path)?;
        let names: Vec<&str> = weights.names().collect();
        let mut modules = Vec::new();
        for name in names.iter().filter_map(|name| name.strip_suffix(".a")) {
            let factor = |letter: &str| -> Result<ndarray::ArrayD<f32>, TrainError> {
                let (values, shape) = weights.require(&format!("{name}.{letter}"))?;
                ndarray::ArrayD::from_shape_vec(shape, values)
                    .map_err(|error| wrong(error.to_string()))
            };
            let module = LoraModule::new(factor("a")?, factor("b")?, config.alpha)?;
            modules.push((name.to_owned(), module));
        }
        let adapter = Adapter::new(modules);
        let mut trainer = Self::from_adapter(unet, scheduler, objective, config, &adapter, device)?;
        for factor in &mut trainer.factors.all {
            let moment = |number| weights.require(&format!("{}.moment_{number}", factor.name));
            let ((first, _), (second, _)) = (moment(1)?, moment(2)?);
            Factors::restore(factor, step, first, second, device);
        }
        trainer.step = step;
        Ok(trainer)
    }
}

/// The bytes of a checkpoint and its metadata.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, HashMap<String, String>), TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| damaged(path, error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok((bytes, metadata))
}

/// The number of steps done, according to a checkpoint's metadata.
pub(crate) fn step(metadata: &HashMap<String, String>, path: &Path) -> Result<usize, TrainError> {
    metadata
        .get(STEP)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| damaged(path, format!("metadata {STEP}: expected a number")))
}

/// What is wrong with a checkpoint.
pub(crate) fn damaged(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    }
}

fn settings(config: &ValidTrainConfig) -> String {
    // Field by field, so that the text is the same on every run.
    format!("{:?}", **config)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
