//! The loop that both trainings share, with checkpoints from which it goes on.

use std::collections::HashMap;
use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use selma_durable::atomic_write;

use super::optimizer::{Rates, optimizer};
use crate::checkpoint::{damaged, read_file};
use crate::shards::{HALVES, for_each_shard};
use crate::{Observer, Progress, TrainError, one_cycle};

/// Where a pretraining keeps what it needs to go on after an interruption, and how often it writes it.
///
/// The file holds the model, the optimizer's state and the step. A training that finds it goes on from there and makes
/// the same weights as an uninterrupted one. It does not say what it belongs to: that is for the caller to know.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoints<'a> {
    /// The file.
    pub path: &'a Path,
    /// Steps between two writings.
    pub every: usize,
}

/// How a model is trained.
#[derive(Debug)]
pub(super) struct Descent<'a> {
    /// Steps of each phase; the learning rates go through their cycle in each.
    pub(super) phases: Vec<usize>,
    pub(super) rates: Rates,
    pub(super) adamw: AdamWConfig,
    pub(super) device: &'a Device,
    pub(super) checkpoints: Option<Checkpoints<'a>>,
}

/// What a shard of a batch says.
pub(super) struct ShardLoss {
    /// Its part of the batch's loss.
    pub(super) loss: Tensor<1>,
    /// Its part of the number that is reported.
    pub(super) reported: f32,
    /// What it was computed from.
    pub(super) samples: Vec<usize>,
}

impl Descent<'_> {
    /// Trains `model` on the losses that `shard_loss(model, step, shard)` gives.
    ///
    /// # Errors
    ///
    /// Those of `shard_loss`; if the loss is not finite, the observer stops, or a checkpoint cannot be read or written.
    pub(super) fn run<M: Module + Sync>(
        &self,
        model: M,
        shard_loss: impl Fn(&M, usize, usize) -> Result<ShardLoss, TrainError> + Sync,
        observer: &mut Observer<'_>,
    ) -> Result<M, TrainError> {
        let mut model = model.train();
        let fresh = |model: &M| optimizer(model, &self.adamw, self.rates);
        let mut optimizer = fresh(&model);
        let mut done = 0;
        if let Some(Checkpoints { path, .. }) = self.checkpoints
            && path.is_file()
        {
            (model, optimizer, done) = load(path, model, fresh)?;
        }
        let steps = self.phases.iter().sum();
        for step in done..steps {
            let shards = for_each_shard(HALVES, |shard| {
                // Leaves of its own: a graph whose leaves are shared can be walked back once only.
                let model = model.clone().fork(self.device);
                let shard = shard_loss(&model, step, shard)?;
                let gradients = GradientsParams::from_grads(shard.loss.backward(), &model);
                Ok((shard.reported, shard.samples, gradients))
            })?;
            let loss: f32 = shards.iter().map(|(reported, ..)| reported).sum();
            if !loss.is_finite() {
                let samples = shards.into_iter().flat_map(|(_, samples, _)| samples);
                return Err(TrainError::NonFinite {
                    step: step + 1,
                    what: "loss",
                    value: loss,
                    samples: samples.collect(),
                });
            }
            let mut sums = GradientsAccumulator::new();
            for (.., gradients) in shards {
                sums.accumulate(&model, gradients);
            }
            let learning_rate = self.learning_rate(step);
            model = optimizer.step(learning_rate, model, sums.grads());
            // The observer first: what it records is then never behind the checkpoint.
            let flow = observer(Progress {
                step: step + 1,
                steps,
                loss,
                accuracy: None,
                learning_rate,
                grad_norm: None,
                time: None,
            });
            if let Some(Checkpoints { path, every }) = self.checkpoints
                && (step + 1).is_multiple_of(every.max(1))
            {
                save(path, &model, &optimizer, step + 1)?;
            }
            if flow.is_break() {
                return Err(TrainError::Cancelled { step: step + 1 });
            }
        }
        Ok(model.valid())
    }

    /// AdamW's learning rate.
    fn learning_rate(&self, step: usize) -> f64 {
        let mut step = step;
        for &steps in &self.phases {
            if step < steps {
                return one_cycle(step, steps, self.rates.others);
            }
            step -= steps;
        }
        0.0
    }
}

/// Key of the metadata that holds the number of steps done.
const STEP: &str = "selma.step";
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";

fn save<M: Module>(
    path: &Path,
    model: &M,
    optimizer: &ModuleOptimizer,
    step: usize,
) -> Result<(), TrainError> {
    let failed = |reason| damaged(path, reason);
    let model = model.clone().into_record().into_bytes();
    let model = model.map_err(|error| failed(error.to_string()))?;
    let optimizer = optimizer.into_bytes();
    let optimizer = optimizer.map_err(|error| failed(error.to_string()))?;
    let view = |bytes| TensorView::new(Dtype::U8, vec![<[u8]>::len(bytes)], bytes);
    let metadata = HashMap::from([(STEP.to_owned(), step.to_string())]);
    let file = view(&model)
        .and_then(|model| Ok([(MODEL, model), (OPTIMIZER, view(&optimizer)?)]))
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| failed(error.to_string()))?;
    Ok(atomic_write(path, &file)?)
}

fn load<M: Module>(
    path: &Path,
    model: M,
    fresh: impl Fn(&M) -> ModuleOptimizer,
) -> Result<(M, ModuleOptimizer, usize), TrainError> {
    let damaged = |reason| damaged(path, reason);
    let (bytes, metadata) = read(path)?;
    let step = step(&metadata, path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let part = |name| {
        let tensor = file.tensor(name);
        let tensor = tensor.map_err(|error| damaged(error.to_string()))?;
        Ok::<_, TrainError>(Bytes::from_bytes_vec(tensor.data().to_vec()))
    };
    let record = ModuleRecord::from_bytes(part(MODEL)?);
    let record = record.map_err(|error| damaged(error.to_string()))?;
    let model = model.try_load_record(record);
    let model = model.map_err(|error| damaged(error.to_string()))?;
    let optimizer = fresh(&model).from_bytes(part(OPTIMIZER)?);
    let optimizer = optimizer.map_err(|error| damaged(error.to_string()))?;
    Ok((model, optimizer, step))
}

/// The bytes of a checkpoint of one file and its metadata.
fn read(path: &Path) -> Result<(Vec<u8>, HashMap<String, String>), TrainError> {
    let bytes = read_file(path)?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| damaged(path, error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok((bytes, metadata))
}

/// The number of steps done, according to a checkpoint's metadata.
fn step(metadata: &HashMap<String, String>, path: &Path) -> Result<usize, TrainError> {
    metadata
        .get(STEP)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| damaged(path, format!("metadata {STEP}: expected a number")))
}
