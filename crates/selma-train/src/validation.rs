//! The loss on data that is not trained on.

use selma_dataset::Crop;
use selma_diffusion::noise::derive_seed;

use crate::factors::scalar;
use crate::{
    Denoiser, Draw, Objective, Source, TrainConfig, TrainError, Trainer, ValidTrainConfig,
};

/// Draws of noise and timestep in a validation at least, so that a few samples are seen at several timesteps.
const DRAWS: usize = 64;

impl ValidTrainConfig {
    /// What data for validation is encoded and drawn with: these settings, but nothing random that only a training is to see (places of crops, mirroring, dropped
    /// captions, offsets of the noise, input perturbation, and weights of data sets), and a seed of its own.
    #[must_use]
    pub fn for_validation(&self) -> Self {
        let mut config: TrainConfig = (**self).clone();
        config.seed = derive_seed(self.seed, "validation", &[]);
        config.geometry.crop = Crop::Center;
        config.geometry.flip = false;
        config.caption_dropout = 0.0;
        config.noise_offset = 0.0;
        config.input_perturbation = 0.0;
        config.data_weights.clear();
        self.with(config)
    }
}

impl<O: Objective> Trainer<O> {
    /// The mean loss on data that is not trained on, which changes nothing. `count` is the number of its samples: as many batches are drawn as show each once, and 64 samples
    /// at least.
    ///
    /// Noise and timesteps depend on the seed alone, so that losses of different steps, and of different rates or ranks, can be compared. The data is encoded with the settings of
    /// [`ValidTrainConfig::for_validation`].
    ///
    /// # Errors
    ///
    /// If the data cannot be read, or does not fit the network.
    pub fn validate(
        &self,
        source: &impl Source<O::Batch>,
        count: usize,
    ) -> Result<f32, TrainError> {
        let config = self.config.for_validation();
        let unet = self.model();
        let passes = count.max(DRAWS).div_ceil(config.batch_size);
        let mut sum = 0.0;
        for pass in 0..passes {
            let drawn = source.make(&Draw {
                config: &config,
                pass,
                timesteps: self.timesteps,
                device: &self.device,
            })?;
            let model = Denoiser::new(&unet).computing_in(self.precision.computed);
            let loss = self.objective.loss(&model, &drawn.batch)?;
            sum += f64::from(scalar(&loss.value)?);
        }
        Ok((sum / passes as f64) as f32)
    }
}
