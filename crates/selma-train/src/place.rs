//! What is drawn for a sample.

use std::num::NonZeroU64;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_dataset::{Plan, PlannedSet, draw_view};
use selma_diffusion::noise::{derive_seed, normal};

use crate::{Draw, TrainError, ValidTrainConfig};

/// What is drawn for one of the samples since the start of the training: its place in the order, timestep and dropped caption.
///
/// Each depends on the seed and the position alone, so that a resumed training sees what an uninterrupted one would have
/// seen.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    config: &'a ValidTrainConfig,
    position: usize,
    pub(crate) sample: usize,
    pub(crate) timestep: usize,
    pub(crate) dropped: bool,
}

impl<'a> Place<'a> {
    /// Those of a forward pass over data sets.
    pub(crate) fn of_pass(draw: &Draw<'a>, sets: &[PlannedSet]) -> Result<Vec<Self>, TrainError> {
        let config = draw.config;
        let plan = Plan::new(config.seed, config.batch_size, sets)?;
        let samples = plan.batch(draw.pass);
        let place = |(position, sample)| {
            let seed = derive_seed(config.seed, "timestep", &[position as u64]);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            Self {
                config,
                position,
                sample,
                timestep: rng.random_range(0..draw.timesteps),
                dropped: rng.random_bool(config.caption_dropout),
            }
        };
        Ok((draw.position()..).zip(samples).map(place).collect())
    }

    /// Which of so many views of the sample is shown.
    pub(crate) fn view(&self, views: Option<NonZeroU64>) -> u64 {
        draw_view(self.config.seed, self.position as u64, views)
    }

    /// A seed for something else that is drawn for the sample.
    pub(crate) fn seed(&self, label: &str) -> u64 {
        derive_seed(self.config.seed, label, &[self.position as u64])
    }

    /// Noise of unit variance for latents of `[channels, height, width]`, and the offset of each channel.
    pub(crate) fn noise(&self, [channels, height, width]: [usize; 3]) -> Vec<f32> {
        let mut noise = normal(self.seed("noise"), channels * height * width);
        if self.config.noise_offset > 0.0 {
            let offsets = normal(self.seed("noise offset"), channels);
            for (channel, offset) in noise.chunks_mut(height * width).zip(offsets) {
                for value in channel {
                    *value += self.config.noise_offset as f32 * offset;
                }
            }
        }
        noise
    }
}
