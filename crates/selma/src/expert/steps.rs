//! The steps of a training, from its last checkpoint on.

use std::path::Path;
use std::time::Duration;

use selma_diffusion::StableDiffusion;
use selma_durable::remove_temporaries;
use selma_train::{Feed, Objective, Source, TrainCheckpoints, Trainer};

use super::Expert;
use crate::step_log::StepLog;
use crate::validation::ValidationLog;
use crate::{Pick, RunEvent, RunObserver, SelmaError};

impl Expert<'_> {
    /// Takes all steps that are left.
    pub(super) fn steps<O: Objective>(
        &self,
        trainer: &mut Trainer<O>,
        feed: &impl Feed<O::Batch>,
        validation: Option<(&impl Source<O::Batch>, usize)>,
        pipeline: &StableDiffusion,
        folder: &Path,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        let mut losses = match validation {
            Some(_) => Some(ValidationLog::open(folder)?),
            None => None,
        };
        let picks_best = self
            .validation
            .is_some_and(|validation| validation.pick == Pick::Best);
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
            if let (Some(losses), Some((source, count))) = (&mut losses, validation)
                && (kept.is_due(progress.step) || trainer.is_finished())
                && !losses.has(progress.step)
            {
                losses.push(progress.step, trainer.validate(source, count)?)?;
            }
            if due {
                let best = losses
                    .as_ref()
                    .and_then(|losses| losses.best(progress.step));
                let best = best.filter(|_| picks_best).map(|best| best.step);
                kept.save_beside(trainer, best)?;
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

    /// The training as its last checkpoint has it, or from its beginning.
    pub(super) fn trainer<O: Objective>(
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
        let trainer = match (last, self.mixture) {
            (Some(last), _) => Trainer::resume(unet, scheduler, objective, config, &last, device)?,
            (None, Some(mixture)) => {
                Trainer::from_mixture(unet, scheduler, objective, config, mixture, device)?
            }
            (None, None) => Trainer::new(unet, scheduler, objective, config, device)?,
        };
        match self.further_devices {
            [] => Ok(trainer),
            devices => Ok(trainer.with_further_devices(devices)?),
        }
    }

    /// The training as it was at a step of which there is a checkpoint.
    pub(super) fn resumed<O: Objective>(
        &self,
        objective: O,
        pipeline: &StableDiffusion,
        checkpoints: &Path,
        step: usize,
    ) -> Result<Trainer<O>, SelmaError> {
        let all = TrainCheckpoints::all(checkpoints)?;
        let found = all.into_iter().find(|(of, _)| *of == step);
        let (_, path) = found.ok_or_else(|| SelmaError::Damaged {
            path: checkpoints.to_owned(),
            reason: format!(
                "the checkpoint of step {step}, which is to become the adapter, is missing"
            ),
        })?;
        let scheduler = &pipeline.scheduler_config;
        let (unet, config) = (pipeline.unet.clone(), self.config.clone());
        let device = pipeline.device();
        Ok(Trainer::resume(
            unet, scheduler, objective, config, &path, device,
        )?)
    }
}
