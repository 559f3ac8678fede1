//! The training loop.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::schedulers::SchedulerConfig;
use selma_lora::nn::{Attachable, attach, extract, extract_mixture};
use selma_lora::{Adapter, LoraError, Mixing, Mixture};

use crate::copies::Copies;
use crate::factors::{BRANCH, COMPONENT, Factors, initial, renew, scalar, untrack};
use crate::precision::{Precision, kept_in};
use crate::shards::{for_each_shard, part};
use crate::{
    Denoiser, Draw, Drawn, Feed, Objective, Observer, Progress, Samples, StepTime,
    TrainCheckpoints, TrainError, ValidTrainConfig,
};

/// What a part of a batch adds to a step.
struct Part {
    loss: f32,
    accuracy: Option<f32>,
    gradients: Vec<Tensor<1>>,
}

/// Trains one adapter, or the weights of a mixture of several, on a frozen UNet.
pub struct Trainer<O> {
    pub(crate) unet: UNet2DConditionModel,
    pub(crate) config: ValidTrainConfig,
    pub(crate) factors: Factors,
    pub(crate) step: usize,
    /// Hashes of the experts, where a mixture is trained.
    experts: Option<Vec<String>>,
    pub(crate) objective: O,
    pub(crate) timesteps: usize,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    copies: Copies,
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
        Ok(Self::start(unet, scheduler, objective, config, device))
    }

    /// A training of a mixture's gates, and with [`train_experts`](crate::TrainConfig::train_experts) of its experts; the settings of ranks and targets are without effect.
    ///
    /// # Errors
    ///
    /// If the mixture does not fit the UNet, or has layers of another component; [`TrainError::Setting`] if its routers choose a single expert while the experts are frozen, as
    /// nothing can be learned then.
    pub fn from_mixture(
        mut unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        mixture: &Mixture,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let others = mixture.paths().into_iter();
        let others = others.filter(|path| path.split('.').next() != Some(COMPONENT));
        let unmatched: Vec<String> = others.map(str::to_owned).collect();
        if !unmatched.is_empty() {
            return Err(TrainError::Lora(LoraError::NotStrict {
                unmatched,
                mis_shaped: Vec::new(),
            }));
        }
        if mixture.mixing == (Mixing::Router { top_k: 1 }) && !config.train_experts {
            return Err(TrainError::Setting {
                field: "top_k",
                expected: "at least 2, as the weight of a single expert is always 1".to_owned(),
                found: "1".to_owned(),
            });
        }
        mixture.attach_to(&mut unet, COMPONENT, BRANCH, 1.0)?;
        let trainer = Self::start(unet, scheduler, objective, config, device);
        Ok(Self {
            experts: Some(mixture.experts.clone()),
            ..trainer
        })
    }

    fn start(
        unet: UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        objective: O,
        config: ValidTrainConfig,
        device: &Device,
    ) -> Self {
        let mut unet = kept_in(unet, config.unet_dtype());
        Self {
            precision: Precision::of(&config, device),
            factors: Factors::track(&mut unet, &config),
            copies: Copies::default(),
            unet,
            config,
            step: 0,
            experts: None,
            objective,
            timesteps: scheduler.num_train_timesteps(),
            device: device.clone(),
        }
    }

    /// Spreads the shards of every batch over further devices, each with a copy of the network; they take turns, the first shard is the trainer's own. Losses
    /// and gradients are summed in the order of the shards on the trainer's device, so that devices of one kind change no bit.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if there are fewer shards than devices.
    pub fn with_further_devices(mut self, devices: &[Device]) -> Result<Self, TrainError> {
        if self.config.shards < devices.len() + 1 {
            return Err(TrainError::Setting {
                field: "shards",
                expected: format!("at least one for each of {} devices", devices.len() + 1),
                found: self.config.shards.to_string(),
            });
        }
        self.copies = Copies::of(&self.model(), &self.config, devices);
        Ok(self)
    }

    /// Optimizer steps done.
    #[must_use]
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Trains until all steps are done, with checkpoints if a folder for them is given: also of the step at which the observer stops.
    ///
    /// # Errors
    ///
    /// Those of [`step`](Self::step), [`TrainError::Cancelled`] if the observer stops, and errors of writing checkpoints.
    pub fn run(
        &mut self,
        feed: &impl Feed<O::Batch>,
        checkpoints: Option<TrainCheckpoints<'_>>,
        observer: &mut Observer<'_>,
    ) -> Result<(), TrainError> {
        while !self.is_finished() {
            let progress = self.step(feed)?;
            // The observer first: what it records is then never behind the checkpoint.
            let flow = observer(progress);
            if let Some(checkpoints) = checkpoints
                && (flow.is_break() || checkpoints.is_due(self.step))
            {
                checkpoints.save(self)?;
            }
            if flow.is_break() {
                return Err(TrainError::Cancelled { step: self.step });
            }
        }
        Ok(())
    }

    /// Whether all steps are done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.step >= self.config.steps
    }

    /// One optimizer step over the next batches.
    ///
    /// # Errors
    ///
    /// [`TrainError::NonFinite`] if the loss or its gradient is not a number any more, and errors of the data.
    pub fn step(&mut self, feed: &impl Feed<O::Batch>) -> Result<Progress, TrainError> {
        let start = Instant::now();
        let passes = self.config.gradient_accumulation;
        let drawn = (0..passes).map(|pass| {
            let draw = Draw {
                config: &self.config,
                pass: self.step * passes + pass,
                timesteps: self.timesteps,
                device: &self.device,
            };
            feed.draw(&draw, &self.unet)
        });
        let drawn: Vec<Drawn<O::Batch>> = drawn.collect::<Result<_, _>>()?;
        let waited = start.elapsed();
        let progress = self.optimize(&drawn)?;
        let whole = start.elapsed();
        Ok(Progress {
            time: Some(StepTime { whole, waited }),
            ..progress
        })
    }

    /// One optimizer step over given batches: the gradient is the mean of theirs.
    ///
    /// # Errors
    ///
    /// [`TrainError::NonFinite`] if the loss or the gradient is not a number; the factors are then as before.
    pub fn optimize(&mut self, drawn: &[Drawn<O::Batch>]) -> Result<Progress, TrainError> {
        let mut sums: Vec<Tensor<1>> = Vec::new();
        let mut loss = 0.0;
        let mut accuracy: Option<f32> = None;
        for Drawn { batch, .. } in drawn {
            for part in self.backward(batch, drawn.len())? {
                loss += part.loss;
                accuracy = part
                    .accuracy
                    .map(|share| accuracy.unwrap_or_default() + share);
                Factors::accumulate(&mut sums, part.gradients);
            }
        }
        let grad_norm = Factors::norm(&sums)?;
        for (what, value) in [("loss", loss), ("norm of the gradient", grad_norm)] {
            if !value.is_finite() {
                return Err(TrainError::NonFinite {
                    step: self.step + 1,
                    what,
                    value,
                    samples: self.culprits(drawn)?,
                });
            }
        }
        let learning_rate = self.config.learning_rate_at(self.step);
        self.factors
            .step(&mut self.unet, sums, grad_norm, learning_rate);
        if !self.copies.is_empty() {
            let unet = self.model();
            self.copies.follow(unet, &self.config);
        }
        self.step += 1;
        Ok(Progress {
            step: self.step,
            steps: self.config.steps,
            loss,
            accuracy,
            learning_rate,
            grad_norm: Some(grad_norm),
            time: None,
        })
    }

    /// Losses and gradients of the shards of one of `batches` batches; their sums over all of these are the means.
    fn backward(&self, batch: &O::Batch, batches: usize) -> Result<Vec<Part>, TrainError> {
        let (count, shards) = (batch.count(), self.config.shards);
        for_each_shard(shards, |shard| {
            let range = part(count, shards, shard);
            let share = range.len() as f64 / (count * batches) as f64;
            let own = (&self.unet, &self.device);
            let (unet, device) = self.copies.of_shard(shard).unwrap_or(own);
            let mut unet = unet.clone();
            if shards > 1 {
                // Leaves of its own: a graph whose leaves are shared can be walked back once only.
                renew(&mut unet);
            }
            let samples = batch.slice(range).to_device(device);
            let part = self.part(&unet, &samples, share)?;
            let gradients = part.gradients.into_iter();
            let gradients = gradients.map(|gradient| gradient.to_device(&self.device));
            Ok(Part {
                gradients: gradients.collect(),
                ..part
            })
        })
    }

    /// Loss and gradient of a batch that is a share of a step.
    fn part(
        &self,
        unet: &UNet2DConditionModel,
        batch: &O::Batch,
        share: f64,
    ) -> Result<Part, TrainError> {
        let model = match self.config.recompute {
            true => Denoiser::recomputing(unet),
            false => Denoiser::new(unet),
        };
        let model = model.computing_in(self.precision.computed);
        let loss = self.objective.loss(&model, batch)?;
        let accuracy = loss.accuracy.map(|value| scalar(&value.mul_scalar(share)));
        let value = loss.value.mul_scalar(share);
        let gradients = match self.precision.loss_scale {
            None => model.gradients(&value)?,
            Some(scale) => {
                let gradients = model.gradients(&value.clone().mul_scalar(scale))?;
                let unscaled = gradients.into_iter();
                unscaled
                    .map(|gradient| gradient.div_scalar(scale))
                    .collect()
            }
        };
        Ok(Part {
            loss: scalar(&value)?,
            accuracy: accuracy.transpose()?,
            gradients,
        })
    }

    /// The samples that alone give a loss or a gradient that is not finite; all if none does.
    fn culprits(&self, drawn: &[Drawn<O::Batch>]) -> Result<Vec<usize>, TrainError> {
        let mut found = Vec::new();
        for Drawn { batch, samples } in drawn {
            for (index, &sample) in samples.iter().enumerate() {
                let part = self.part(&self.unet, &batch.slice(index..index + 1), 1.0)?;
                if !(part.loss.is_finite() && Factors::norm(&part.gradients)?.is_finite()) {
                    found.push(sample);
                }
            }
        }
        if found.is_empty() {
            found.extend(drawn.iter().flat_map(|drawn| &drawn.samples));
        }
        Ok(found)
    }

    /// The adapter as it stands.
    ///
    /// # Errors
    ///
    /// If the factors cannot be read from the device, or a mixture is trained.
    pub fn adapter(&self) -> Result<Adapter, TrainError> {
        Ok(extract(&mut self.model(), COMPONENT, BRANCH)?)
    }

    /// The mixture as it stands; none where an adapter is trained.
    ///
    /// # Errors
    ///
    /// If the factors cannot be read from the device.
    pub fn mixture(&self) -> Result<Option<Mixture>, TrainError> {
        let extract =
            |experts: &Vec<String>| extract_mixture(&mut self.model(), COMPONENT, BRANCH, experts);
        Ok(self.experts.as_ref().map(extract).transpose()?)
    }

    /// The model with the adapter or the mixture as it stands, to draw with.
    #[must_use]
    pub fn model(&self) -> UNet2DConditionModel {
        let mut plain = self.unet.clone();
        untrack(&mut plain);
        plain
    }
}
