//! Pairs of pictures as the UNet sees them.

use image::RgbImage;
use selma_diffusion::StableDiffusion;
use sha2::{Digest, Sha256};

use crate::place::Place;
use crate::training_set::latents;
use crate::{Draw, Drawn, Feed, PairBatch, TrainError, TrainingSet, ValidTrainConfig};

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
    /// As [`TrainingSet::encode`], and if the two pictures of a pair are shown in different sizes.
    pub fn encode<E: From<TrainError>>(
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        pairs: impl IntoIterator<Item = Result<(RgbImage, RgbImage, String), E>>,
    ) -> Result<Self, E> {
        let mut rejected = TrainingSet::default();
        let samples = pairs.into_iter().map(|pair| -> Result<_, E> {
            let (better, worse, text) = pair?;
            rejected.push_images(pipeline, config, vec![worse])?;
            Ok((better, text))
        });
        let chosen = TrainingSet::encode(pipeline, config, samples)?;
        let sizes = chosen.sizes().into_iter().zip(rejected.sizes());
        for (pair, (better, worse)) in sizes.enumerate() {
            if better != worse {
                return Err(TrainError::Setting {
                    field: "size of the images",
                    expected: format!("latents of {better} as the better one of pair {pair}"),
                    found: worse.to_string(),
                }
                .into());
            }
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
        let places = Place::of_pass(draw, set.sizes())?;
        let (mut views, mut others) = (Vec::new(), Vec::new());
        for place in &places {
            views.push(set.view(place)?);
            others.push(self.rejected.view(place)?);
        }
        let (mut chosen, mut rejected, mut noise) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, view), other) in places.iter().zip(&views).zip(&others) {
            view.push_latents(&mut chosen, place.seed("latents"), config);
            let seed = place.seed("latents of the rejected");
            other.push_latents(&mut rejected, seed, config);
            noise.extend(place.noise(view.shape));
        }
        let batch = PairBatch {
            chosen: latents(chosen, &views, draw.device),
            rejected: latents(rejected, &others, draw.device),
            noise: latents(noise, &views, draw.device),
            timesteps: places.iter().map(|place| place.timestep).collect(),
            conditioning: set.conditioning(&places, &views, draw.device),
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}
