//! Pairs of pictures as the UNet sees them.

use image::RgbImage;
use selma_diffusion::StableDiffusion;
use sha2::{Digest, Sha256};

use crate::training_set::Place;
use crate::{Draw, Drawn, Feed, PairBatch, TrainError, TrainingSet};

/// Encoded pairs of a better and a worse picture of one text, in host memory.
#[derive(Debug, Clone)]
pub struct PairSet {
    /// The better ones, with the texts.
    chosen: TrainingSet,
    /// The others, without.
    rejected: TrainingSet,
}

impl PairSet {
    /// Encodes pairs: the better picture, the other one, and their text.
    ///
    /// # Errors
    ///
    /// As [`TrainingSet::encode`]; all pictures have one size.
    pub fn encode<E: From<TrainError>>(
        pipeline: &StableDiffusion,
        pairs: impl IntoIterator<Item = Result<(RgbImage, RgbImage, String), E>>,
    ) -> Result<Self, E> {
        let mut rejected = TrainingSet::default();
        let samples = pairs.into_iter().map(|pair| -> Result<_, E> {
            let (better, worse, text) = pair?;
            rejected.hash.update(Sha256::digest(worse.as_raw()));
            rejected.push_images(pipeline, &[worse])?;
            Ok((better, text))
        });
        let chosen = TrainingSet::encode(pipeline, samples)?;
        if rejected.shape != chosen.shape {
            return Err(TrainError::Setting {
                field: "size of the images",
                expected: format!("latents of {:?} as the better ones", chosen.shape),
                found: format!("{:?}", rejected.shape),
            }
            .into());
        }
        Ok(Self { chosen, rejected })
    }

    /// SHA-256 of the pictures' pixels and the captions, in their order: in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        let both = [self.chosen.sha256(), self.rejected.sha256()].concat();
        hex::encode(Sha256::digest(both))
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there are no pairs; never for a set that [`encode`](Self::encode) made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }
}

impl Feed<PairBatch> for PairSet {
    fn draw(&self, draw: &Draw<'_>) -> Result<Drawn<PairBatch>, TrainError> {
        let (config, set) = (draw.config, &self.chosen);
        let count = config.batch_size;
        let (mut chosen, mut rejected, mut noise) = (Vec::new(), Vec::new(), Vec::new());
        let places = Place::of_pass(draw, set.len());
        for place in &places {
            set.push_latents(&mut chosen, place.sample, place.seed("latents"), config);
            let seed = place.seed("latents of the rejected");
            self.rejected
                .push_latents(&mut rejected, place.sample, seed, config);
            noise.extend(place.noise(set.shape));
        }
        let texts: Vec<usize> = places.iter().map(|place| set.text(place)).collect();
        let batch = PairBatch {
            chosen: set.tensor(chosen, count, draw.device),
            rejected: set.tensor(rejected, count, draw.device),
            noise: set.tensor(noise, count, draw.device),
            timesteps: places.iter().map(|place| place.timestep).collect(),
            conditioning: set.conditioning(&texts, draw.device),
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}
