//! A data set as the UNet sees it: encoded once, then drawn from at random.

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use selma_dataset::PlannedSet;
use selma_diffusion::StableDiffusion;
use selma_diffusion::models::{AddedConditioning, Conditioning, UNet2DConditionModel};
use selma_diffusion::noise::normal;
use sha2::{Digest, Sha256};

use crate::encodings::{BATCH, Encodings};
use crate::place::Place;
use crate::shown::{Shown, ShownView, push_latents};
use crate::{
    Batch, Draw, Drawn, EncodeReport, EncodingCache, Feed, Source, TrainError, ValidTrainConfig,
};

/// Encoded images and captions, in host memory or in the files of a cache. What is there several times is encoded and kept once.
///
/// The VAE's moments are kept, not one draw, so that the latents of an image differ from epoch to epoch as they do when
/// nothing is cached. Of an image that is cut or mirrored at random a few views are kept, of which one is drawn each time.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    pub(crate) encodings: Encodings,
    shown: Shown,
    /// Number of each sample's text.
    texts: Vec<usize>,
    /// Number of what stands for no text.
    no_text: usize,
    /// Samples of each data set, where they have weights.
    parts: Vec<usize>,
}

impl TrainingSet {
    /// Encodes images with their captions, as the settings say: resized, cut and mirrored, or as they are. What the cache has is not encoded again.
    ///
    /// A dropped caption becomes what guidance starts from where there is no negative prompt: the empty text, and zeros in
    /// SDXL.
    ///
    /// # Errors
    ///
    /// If there are none, a size is no multiple of the VAE's factor, a caption cannot be tokenized, or the cache cannot be written; and the first error of the samples.
    pub fn encode<E: From<TrainError>>(
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        cache: Option<&EncodingCache>,
        samples: impl IntoIterator<Item = Result<(RgbImage, String), E>>,
    ) -> Result<Self, E> {
        let mut set = Self::new(cache);
        for_batches(samples, |batch| {
            let (images, captions): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            set.push(pipeline, config, &images, &captions)
        })?;
        Ok(set.complete(pipeline)?)
    }

    /// A set to be filled.
    pub(crate) fn new(cache: Option<&EncodingCache>) -> Self {
        Self {
            encodings: Encodings::new(cache),
            ..Self::default()
        }
    }

    /// Adds a few images with captions.
    pub(crate) fn push(
        &mut self,
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        images: &[RgbImage],
        captions: &[String],
    ) -> Result<(), TrainError> {
        let encodings = &mut self.encodings;
        self.shown.push(encodings, pipeline, config, images)?;
        for caption in captions {
            self.shown.hash.update(Sha256::digest(caption));
        }
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        self.texts.extend(encodings.texts(pipeline, &captions)?);
        Ok(())
    }

    /// The set when all is in it.
    pub(crate) fn complete(mut self, pipeline: &StableDiffusion) -> Result<Self, TrainError> {
        if self.is_empty() {
            return Err(TrainError::NoData);
        }
        self.no_text = self.encodings.no_text(pipeline)?;
        Ok(self)
    }

    /// Says how many samples each data set has, for the weights of the settings; they are numbered through in the order of the data sets.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if there are not as many weights as data sets.
    pub fn split(mut self, parts: &[usize], config: &ValidTrainConfig) -> Result<Self, TrainError> {
        let (weights, samples) = (config.data_weights.len(), parts.iter().sum::<usize>());
        if weights != parts.len() || samples != self.len() {
            return Err(wrong_weights(
                format!("one for each of {} data sets", parts.len()),
                weights,
            ));
        }
        self.parts = parts.to_vec();
        for part in parts {
            self.shown.hash.update((*part as u64).to_le_bytes());
        }
        Ok(self)
    }

    /// What had to be encoded.
    #[must_use]
    pub fn report(&self) -> &EncodeReport {
        &self.encodings.report
    }

    /// SHA-256 of the images' pixels and the captions, in their order: in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(self.shown.hash.clone().finalize())
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether there are no samples; never for a set that [`encode`](Self::encode) made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// What batches are planned of.
    pub(crate) fn planned(&self, config: &ValidTrainConfig) -> Result<Vec<PlannedSet>, TrainError> {
        let (sizes, weights) = (self.shown.sizes(), &config.data_weights);
        if weights.is_empty() {
            return Ok(vec![PlannedSet { sizes, weight: 1.0 }]);
        }
        if weights.len() != self.parts.len() {
            let expected = format!("none for {} data sets", self.parts.len());
            return Err(wrong_weights(expected, weights.len()));
        }
        let mut sizes = sizes.into_iter();
        let set = |(&weight, &part)| PlannedSet {
            sizes: sizes.by_ref().take(part).collect(),
            weight,
        };
        Ok(weights.iter().zip(&self.parts).map(set).collect())
    }

    /// What texts and views condition on. Where a caption is dropped, the text is that of none.
    pub(crate) fn conditioning(
        &self,
        places: &[Place<'_>],
        views: &[&ShownView],
        device: &Device,
    ) -> Result<Conditioning, TrainError> {
        let (mut context, mut pooled) = (Vec::new(), Vec::new());
        let (mut shape, mut width) = (Vec::new(), 0);
        for place in places {
            let text = match place.dropped {
                true => Some(&self.no_text),
                false => self.texts.get(place.sample),
            };
            let text = self.encodings.get(*text.ok_or(TrainError::NoData)?)?;
            context.extend_from_slice(&text.first.values);
            shape.clone_from(&text.first.shape);
            if let Some(of_text) = &text.second {
                pooled.extend_from_slice(&of_text.values);
                width = of_text.values.len();
            }
        }
        let count = places.len();
        shape.insert(0, count);
        let added = (width > 0).then(|| AddedConditioning {
            text_embeds: Tensor::from_data(TensorData::new(pooled, [count, width]), device),
            time_ids: views.iter().map(|view| view.time_ids).collect(),
        });
        Ok(Conditioning {
            context: Tensor::from_data(TensorData::new(context, shape), device),
            added,
        })
    }
}

fn wrong_weights(expected: String, found: usize) -> TrainError {
    TrainError::Setting {
        field: "data_weights",
        expected,
        found: found.to_string(),
    }
}

/// Hands samples on, a few at a time.
///
/// # Errors
///
/// The first of the samples, or of what is done with them.
pub(crate) fn for_batches<T, E: From<TrainError>>(
    samples: impl IntoIterator<Item = Result<T, E>>,
    mut push: impl FnMut(Vec<T>) -> Result<(), TrainError>,
) -> Result<(), E> {
    let mut samples = samples.into_iter().peekable();
    while samples.peek().is_some() {
        let batch: Vec<_> = samples.by_ref().take(BATCH).collect::<Result<_, _>>()?;
        push(batch)?;
    }
    Ok(())
}

/// Values of samples of one size as latents.
pub(crate) fn latents(values: Vec<f32>, views: &[&ShownView], device: &Device) -> Tensor<4> {
    let [channels, height, width] = views.first().map_or([0; 3], |view| view.shape);
    let shape = [views.len(), channels, height, width];
    Tensor::from_data(TensorData::new(values, shape), device)
}

impl Source<Batch> for TrainingSet {
    fn make(&self, draw: &Draw<'_>) -> Result<Drawn<Batch>, TrainError> {
        let config = draw.config;
        let places = Place::of_pass(draw, &self.planned(config)?)?;
        let views = places.iter().map(|place| self.shown.view(place));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let (mut clean, mut noise, mut input_noise) = (Vec::new(), Vec::new(), Vec::new());
        for (place, view) in places.iter().zip(&views) {
            let picture = self.encodings.get(view.latents)?;
            push_latents(&mut clean, &picture, place.seed("latents"), config);
            let own = place.noise(view.shape);
            if config.input_perturbation > 0.0 {
                let more = normal(place.seed("input perturbation"), own.len());
                let strength = config.input_perturbation as f32;
                input_noise.extend(own.iter().zip(more).map(|(x, more)| x + strength * more));
            }
            noise.extend(own);
        }
        let perturbed = !input_noise.is_empty();
        let batch = Batch {
            latents: latents(clean, &views, draw.device),
            noise: latents(noise, &views, draw.device),
            input_noise: perturbed.then(|| latents(input_noise, &views, draw.device)),
            timesteps: places.iter().map(|place| place.timestep).collect(),
            conditioning: self.conditioning(&places, &views, draw.device)?,
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}

impl Feed<Batch> for TrainingSet {
    fn draw(&self, draw: &Draw<'_>, _: &UNet2DConditionModel) -> Result<Drawn<Batch>, TrainError> {
        self.make(draw)
    }
}
