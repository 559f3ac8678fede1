//! Batches that are made while the network computes.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use selma_diffusion::models::UNet2DConditionModel;

use crate::{Draw, Drawn, Feed, Objective, Source, TrainError, Trainer};

/// A source whose batches are made ahead, on threads of their own.
///
/// Of n threads each makes every n-th batch, and waits with one that is finished until it is asked for. A batch is the same whoever makes it, so that results do not depend on
/// the number of threads.
#[derive(Debug)]
pub struct Prefetch<'a, B, S> {
    source: &'a S,
    /// The first pass that was made ahead.
    first: usize,
    lanes: Vec<Receiver<Made<B>>>,
}

#[derive(Debug)]
struct Made<B> {
    pass: usize,
    drawn: Result<Drawn<B>, TrainError>,
}

impl<'a, B: Send + 'a, S: Source<B>> Prefetch<'a, B, S> {
    /// Begins to make what a trainer will ask for from its step on. Without threads, batches are made when they are asked for.
    ///
    /// The threads end with the trainer's last step, or when this is dropped, which has to be before the end of the scope.
    pub fn start<O: Objective<Batch = B>>(
        scope: &'a Scope<'a, '_>,
        source: &'a S,
        trainer: &Trainer<O>,
        threads: usize,
    ) -> Self {
        let passes = trainer.config.gradient_accumulation;
        let (first, end) = (trainer.step * passes, trainer.config.steps * passes);
        let lane = |lane| {
            let (sender, receiver) = sync_channel(1);
            let (config, device) = (trainer.config.clone(), trainer.device.clone());
            let timesteps = trainer.timesteps;
            scope.spawn(move || {
                for pass in (first + lane..end).step_by(threads) {
                    let drawn = source.make(&Draw {
                        config: &config,
                        pass,
                        timesteps,
                        device: &device,
                    });
                    let failed = drawn.is_err();
                    // Nobody waits for it where a training was stopped.
                    if sender.send(Made { pass, drawn }).is_err() || failed {
                        return;
                    }
                }
            });
            receiver
        };
        Self {
            source,
            first,
            lanes: (0..threads).map(lane).collect(),
        }
    }
}

impl<B, S: Source<B>> Feed<B> for Prefetch<'_, B, S> {
    fn draw(&self, draw: &Draw<'_>, _: &UNet2DConditionModel) -> Result<Drawn<B>, TrainError> {
        let ahead = draw.pass.checked_sub(self.first);
        let lane = ahead.and_then(|ahead| self.lanes.get(ahead.checked_rem(self.lanes.len())?));
        match lane.and_then(|lane| lane.recv().ok()) {
            Some(made) if made.pass == draw.pass => made.drawn,
            // Not in turn, or after an error.
            _ => self.source.make(draw),
        }
    }
}
