//! The training loop.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::schedulers::SchedulerConfig;
use selma_lora::Adapter;
use selma_lora::nn::{attach, extract};

use crate::factors::{BRANCH, COMPONENT, Factors, initial, renew, scalar, untrack};
use crate::shards::{for_each_shard, part};
use crate::{Batch, Objective, Observer, Progress, TrainError, TrainingSet, ValidTrainConfig};

/// Trains one adapter on a frozen UNet.
pub struct Trainer<O> {
    pub(crate) unet: UNet2DConditionModel,
    pub(crate) config: ValidTrainConfig,
    pub(crate) factors: Factors,
    pub(crate) step: usize,
    objective: O,
    timesteps: usize,
    device: Device,
}

impl<O> std::fmt::Debug for Trainer<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl<O: Objective> Trainer<O> {
    /// A training from fresh factors: A drawn from the seed, B zero.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoTargets`] if no layer is called like a target.
    pub fn new(
        mut unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let adapter = initial(&mut unet, &config)?;
        Self::from_adapter(unet, scheduler, objective, config, &adapter, device)
    }

    /// A training that goes on from an adapter's factors, with a fresh optimizer.
    ///
    /// # Errors
    ///
    /// If the adapter does not fit the model.
    pub fn from_adapter(
        mut unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        adapter: &Adapter,
        device: &Device,
    ) -> Result<Self, TrainError> {
        attach(&mut unet, COMPONENT, adapter, BRANCH, 1.0)?;
        let factors = Factors::track(&mut unet, &config);
        Ok(Self {
            unet,
            config,
            factors,
            step: 0,
            objective,
            timesteps: scheduler.num_train_timesteps(),
            device: device.clone(),
        })
    }

    /// Optimizer steps done.
    #[must_use]
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Trains until all steps are done, saving a checkpoint every `checkpoint_every` steps if a file is given.
    ///
    /// # Errors
    ///
    /// [`TrainError::NonFinite`] if the loss is not a number any more, [`TrainError::Cancelled`] if the observer stops,
    /// and errors of writing checkpoints.
    pub fn run(
        &mut self,
        set: &TrainingSet,
        checkpoint: Option<(&Path, usize)>,
        observer: &mut Observer<'_>,
    ) -> Result<(), TrainError> {
        while self.step < self.config.steps {
            let per_step = self.config.batch_size * self.config.gradient_accumulation;
            let start = self.step * per_step;
            let mut batches = Vec::with_capacity(self.config.gradient_accumulation);
            let mut samples = Vec::new();
            for position in (start..start + per_step).step_by(self.config.batch_size) {
                let (batch, drawn) =
                    set.batch(&self.config, position, self.timesteps, &self.device);
                batches.push(batch);
                samples.extend(drawn);
            }
            let progress = self.optimize(&batches).map_err(|error| match error {
                TrainError::NonFinite { step, loss, .. } => TrainError::NonFinite {
                    step,
                    loss,
                    samples,
                },
                other => other,
            })?;
            // The observer first: what it records is then never behind the checkpoint.
            let flow = observer(progress);
            if let Some((path, every)) = checkpoint
                && self.step.is_multiple_of(every.max(1))
            {
                self.save_checkpoint(path)?;
            }
            if flow.is_break() {
                return Err(TrainError::Cancelled { step: self.step });
            }
        }
        Ok(())
    }

    /// One optimizer step over given batches: the gradient is the mean of theirs.
    ///
    /// # Errors
    ///
    /// [`TrainError::NonFinite`] if the loss is not a number; the factors are then as before.
    pub fn optimize(&mut self, batches: &[Batch]) -> Result<Progress, TrainError> {
        let mut sums: Vec<Tensor<1>> = Vec::new();
        let mut total = 0.0;
        for batch in batches {
            for (loss, gradients) in self.backward(batch, batches.len())? {
                total += loss;
                Factors::accumulate(&mut sums, gradients);
            }
        }
        if !total.is_finite() {
            return Err(TrainError::NonFinite {
                step: self.step + 1,
                loss: total,
                samples: Vec::new(),
            });
        }
        let learning_rate = self.config.learning_rate_at(self.step);
        let grad_norm = self.factors.step(&mut self.unet, sums, learning_rate)?;
        self.step += 1;
        Ok(Progress {
            step: self.step,
            steps: self.config.steps,
            loss: total,
            learning_rate,
            grad_norm: Some(grad_norm),
        })
    }

    /// Losses and gradients of the shards of one of `batches` batches; their sums over all of these are the means.
    fn backward(
        &self,
        batch: &Batch,
        batches: usize,
    ) -> Result<Vec<(f32, Vec<Tensor<1>>)>, TrainError> {
        let (count, shards) = (batch.timesteps.len(), self.config.shards);
        for_each_shard(shards, |shard| {
            let range = part(count, shards, shard);
            let share = range.len() as f64 / (count * batches) as f64;
            let mut unet = self.unet.clone();
            if shards > 1 {
                // Leaves of its own: a graph whose leaves are shared can be walked back once only.
                renew(&mut unet);
            }
            let loss = self.objective.loss(&unet, &batch.slice(range))?;
            let loss = loss.mul_scalar(share);
            let value = scalar(&loss)?;
            Ok((value, Factors::gradients(&mut unet, &loss.backward())))
        })
    }

    /// The adapter as it stands.
    ///
    /// # Errors
    ///
    /// If the factors cannot be read from the device.
    pub fn adapter(&mut self) -> Result<Adapter, TrainError> {
        let mut plain = self.unet.clone();
        untrack(&mut plain);
        Ok(extract(&mut plain, COMPONENT, BRANCH)?)
    }
}
