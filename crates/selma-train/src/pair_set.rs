//! Pairs of pictures as the UNet sees them.

use image::RgbImage;
use selma_diffusion::StableDiffusion;
use selma_diffusion::models::UNet2DConditionModel;
use sha2::{Digest, Sha256};

use crate::place::Place;
use crate::shown::{Shown, push_latents};
use crate::training_set::{for_batches, latents};
use crate::{
    Draw, Drawn, EncodeReport, EncodingCache, Feed, PairBatch, Source, TrainError, TrainingSet,
    ValidTrainConfig,
};

/// Encoded pairs of a better and a worse picture of one text, in host memory or in the files of a cache.
#[derive(Debug, Clone)]
pub struct PairSet {
    /// The better ones, with the texts; the encodings are those of both.
    chosen: TrainingSet,
    /// The others.
    rejected: Shown,
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
        cache: Option<&EncodingCache>,
        pairs: impl IntoIterator<Item = Result<(RgbImage, RgbImage, String), E>>,
    ) -> Result<Self, E> {
        let mut chosen = TrainingSet::new(cache);
        let mut rejected = Shown::default();
        for_batches(pairs, |batch| {
            let (mut better, mut worse, mut texts) = (Vec::new(), Vec::new(), Vec::new());
            for pair in batch {
                better.push(pair.0);
                worse.push(pair.1);
                texts.push(pair.2);
            }
            chosen.push(pipeline, config, &better, &texts)?;
            rejected.push(&mut chosen.encodings, pipeline, config, &worse)
        })?;
        let chosen = chosen.complete(pipeline)?;
        let sizes = chosen.shown().sizes().into_iter().zip(rejected.sizes());
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

    /// What had to be encoded.
    #[must_use]
    pub fn report(&self) -> &EncodeReport {
        self.chosen.report()
    }

    /// SHA-256 of the pictures' pixels and the captions, in their order: in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        let rejected = hex::encode(self.rejected.hash.clone().finalize());
        let both = [self.chosen.sha256(), rejected].concat();
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

impl Source<PairBatch> for PairSet {
    fn make(&self, draw: &Draw<'_>) -> Result<Drawn<PairBatch>, TrainError> {
        let (config, set) = (draw.config, &self.chosen);
        let places = Place::of_pass(draw, &set.planned(config)?)?;
        let (mut views, mut others) = (Vec::new(), Vec::new());
        for place in &places {
            views.push(set.shown().view(place)?);
            others.push(self.rejected.view(place)?);
        }
        let (mut chosen, mut rejected, mut noise) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, view), other) in places.iter().zip(&views).zip(&others) {
            let better = set.encodings.get(view.latents)?;
            push_latents(&mut chosen, &better, place.seed("latents"), config);
            let worse = set.encodings.get(other.latents)?;
            let seed = place.seed("latents of the rejected");
            push_latents(&mut rejected, &worse, seed, config);
            noise.extend(place.noise(view.shape));
        }
        let batch = PairBatch {
            chosen: latents(chosen, &views, draw.device),
            rejected: latents(rejected, &others, draw.device),
            noise: latents(noise, &views, draw.device),
            timesteps: places.iter().map(|place| place.timestep).collect(),
            conditioning: set.conditioning(&places, &views, draw.device)?,
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}

impl Feed<PairBatch> for PairSet {
    fn draw(
        &self,
        draw: &Draw<'_>,
        _: &UNet2DConditionModel,
    ) -> Result<Drawn<PairBatch>, TrainError> {
        self.make(draw)
    }
}
