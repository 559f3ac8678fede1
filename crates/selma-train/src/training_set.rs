//! A data set as the UNet sees it: encoded once, then drawn from at random.

use std::num::NonZeroU64;

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use selma_dataset::Size;
use selma_diffusion::StableDiffusion;
use selma_diffusion::image::to_tensor;
use selma_diffusion::models::{AddedConditioning, Conditioning, TimeIds};
use selma_diffusion::noise::normal;
use selma_diffusion::pipeline::TextEmbeddings;
use sha2::{Digest, Sha256};

use crate::factors::host;
use crate::place::Place;
use crate::{Batch, Draw, Drawn, Feed, TrainError, ValidTrainConfig};

/// Images that are encoded together.
const BATCH: usize = 16;

/// Encoded images and captions, in host memory.
///
/// The VAE's moments are kept, not one draw, so that the latents of an image differ from epoch to epoch as they do when
/// nothing is cached. Of an image that is cut or mirrored at random a few views are kept, of which one is drawn each time.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    /// The views of every image, which have one size.
    pub(crate) images: Vec<Vec<EncodedView>>,
    /// Embeddings, text after text; what stands for no text is the last.
    contexts: Vec<f32>,
    /// `[text length, width]` of an embedding.
    context_shape: [usize; 2],
    /// Pooled texts (SDXL), one after the other, in the order of the embeddings.
    pooled: Vec<f32>,
    /// Width of a pooled text; 0 where there is none.
    pooled_width: usize,
    /// Of the images and captions.
    pub(crate) hash: Sha256,
}

/// What is shown of an image, encoded.
#[derive(Debug, Clone)]
pub(crate) struct EncodedView {
    /// Means, then standard deviations of the scaled latents.
    moments: Vec<f32>,
    /// `[channels, height, width]` of the latents.
    pub(crate) shape: [usize; 3],
    /// What SDXL is told of the image's size and the place of the part.
    time_ids: TimeIds,
}

impl EncodedView {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Appends latents: drawn from the VAE's distribution by a seed, or its mean.
    pub(crate) fn push_latents(
        &self,
        latents: &mut Vec<f32>,
        seed: u64,
        config: &ValidTrainConfig,
    ) {
        let elements = self.elements();
        let draw = normal(seed, elements);
        let moments = self.moments.iter();
        let (means, deviations) = (moments.clone().take(elements), moments.skip(elements));
        let drawn = means.zip(deviations).zip(draw);
        let spread = if config.sample_latents { 1.0 } else { 0.0 };
        latents.extend(drawn.map(|((mean, deviation), draw)| mean + spread * deviation * draw));
    }
}

impl TrainingSet {
    /// Encodes images with their captions, as the settings say: resized, cut and mirrored, or as they are.
    ///
    /// A dropped caption becomes what guidance starts from where there is no negative prompt: the empty text, and zeros in
    /// SDXL.
    ///
    /// # Errors
    ///
    /// If there are none, a size is no multiple of the VAE's factor, or a caption cannot be tokenized; and the first error of the samples.
    pub fn encode<E: From<TrainError>>(
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        samples: impl IntoIterator<Item = Result<(RgbImage, String), E>>,
    ) -> Result<Self, E> {
        let mut set = Self::default();
        let mut samples = samples.into_iter().peekable();
        while samples.peek().is_some() {
            let batch: Vec<_> = samples.by_ref().take(BATCH).collect::<Result<_, _>>()?;
            let (images, captions): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            set.push_images(pipeline, config, images)?;
            for caption in &captions {
                set.hash.update(Sha256::digest(caption));
            }
            let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
            let embeddings = pipeline.encode_texts(&captions, None);
            set.push_texts(embeddings.map_err(TrainError::from)?)?;
        }
        if set.is_empty() {
            return Err(TrainError::NoData.into());
        }
        let none = pipeline.encode_negative_texts(&[None]);
        set.push_texts(none.map_err(TrainError::from)?)?;
        Ok(set)
    }

    /// Adds images without texts.
    pub(crate) fn push_images(
        &mut self,
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        images: Vec<RgbImage>,
    ) -> Result<(), TrainError> {
        let geometry = config.geometry.validate()?;
        let mut shown = Vec::with_capacity(images.len());
        for image in images {
            let (sample, original) = (self.images.len(), Size::of(&image));
            self.images.push(Vec::new());
            for number in 0..geometry.views(original, config.crops)?.get() {
                let view = geometry.view(original, config.seed, sample, number)?;
                let part = view.apply(&image)?;
                self.hash.update(Sha256::digest(part.as_raw()));
                shown.push((sample, part, TimeIds::from(view.time_ids())));
            }
        }
        for alike in shown.chunk_by(|(_, one, _), (_, other, _)| Size::of(one) == Size::of(other)) {
            for batch in alike.chunks(BATCH) {
                self.push_views(pipeline, batch)?;
            }
        }
        Ok(())
    }

    /// Encodes views of one size.
    fn push_views(
        &mut self,
        pipeline: &StableDiffusion,
        views: &[(usize, RgbImage, TimeIds)],
    ) -> Result<(), TrainError> {
        let factor = pipeline.vae_config.factor() as u32;
        let images = || views.iter().map(|(_, image, _)| image);
        for image in images() {
            let (width, height) = image.dimensions();
            if width % factor != 0 || height % factor != 0 {
                return Err(TrainError::Setting {
                    field: "size of the images",
                    expected: format!("multiples of {factor}"),
                    found: format!("{width}x{height}"),
                });
            }
        }
        let moments = pipeline.vae.encode(to_tensor(images(), pipeline.device())?);
        let [_, channels, height, width] = moments.mean.dims();
        let shape = [channels, height, width];
        let elements: usize = shape.iter().product();
        let scale = pipeline.vae_config.scaling_factor;
        let means = host(moments.mean.mul_scalar(scale))?;
        let deviations = host(moments.logvar.mul_scalar(0.5).exp().mul_scalar(scale))?;
        let encoded = means.chunks(elements).zip(deviations.chunks(elements));
        for ((sample, _, time_ids), (mean, deviation)) in views.iter().zip(encoded) {
            if let Some(image) = self.images.get_mut(*sample) {
                image.push(EncodedView {
                    moments: [mean, deviation].concat(),
                    shape,
                    time_ids: *time_ids,
                });
            }
        }
        Ok(())
    }

    fn push_texts(&mut self, embeddings: TextEmbeddings) -> Result<(), TrainError> {
        let [_, length, width] = embeddings.context.dims();
        self.context_shape = [length, width];
        self.contexts.extend(host(embeddings.context)?);
        if let Some(pooled) = embeddings.pooled {
            let [_, width] = pooled.dims();
            self.pooled_width = width;
            self.pooled.extend(host(pooled)?);
        }
        Ok(())
    }

    /// SHA-256 of the images' pixels and the captions, in their order: in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no samples; never for a set that [`encode`](Self::encode) made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Sizes of the samples' latents.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        let size = |views: &Vec<EncodedView>| {
            let [_, height, width] = views.first().map_or([0; 3], |view| view.shape);
            Size {
                width: width as u32,
                height: height as u32,
            }
        };
        self.images.iter().map(size).collect()
    }

    /// The view of a sample that is shown at its place.
    pub(crate) fn view(&self, place: &Place<'_>) -> Result<&EncodedView, TrainError> {
        let views = self.images.get(place.sample).ok_or(TrainError::NoData)?;
        let count = NonZeroU64::new(views.len() as u64);
        let number = place.view(count);
        views.get(number as usize).ok_or(TrainError::NoData)
    }

    /// What texts and views condition on. Where a caption is dropped, the text is that of none.
    pub(crate) fn conditioning(
        &self,
        places: &[Place<'_>],
        views: &[&EncodedView],
        device: &Device,
    ) -> Conditioning {
        let text = |place: &Place<'_>| match place.dropped {
            true => self.len(),
            false => place.sample,
        };
        let texts: Vec<usize> = places.iter().map(text).collect();
        let [length, width] = self.context_shape;
        let count = texts.len();
        let context = rows(&self.contexts, length * width, &texts);
        let added = (self.pooled_width > 0).then(|| {
            let pooled = rows(&self.pooled, self.pooled_width, &texts);
            let shape = [count, self.pooled_width];
            AddedConditioning {
                text_embeds: Tensor::from_data(TensorData::new(pooled, shape), device),
                time_ids: views.iter().map(|view| view.time_ids).collect(),
            }
        });
        Conditioning {
            context: Tensor::from_data(TensorData::new(context, [count, length, width]), device),
            added,
        }
    }
}

/// Values of samples of one size as latents.
pub(crate) fn latents(values: Vec<f32>, views: &[&EncodedView], device: &Device) -> Tensor<4> {
    let [channels, height, width] = views.first().map_or([0; 3], |view| view.shape);
    let shape = [views.len(), channels, height, width];
    Tensor::from_data(TensorData::new(values, shape), device)
}

impl Feed<Batch> for TrainingSet {
    fn draw(&self, draw: &Draw<'_>) -> Result<Drawn<Batch>, TrainError> {
        let config = draw.config;
        let places = Place::of_pass(draw, self.sizes())?;
        let views = places.iter().map(|place| self.view(place));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let (mut clean, mut noise, mut input_noise) = (Vec::new(), Vec::new(), Vec::new());
        for (place, view) in places.iter().zip(&views) {
            view.push_latents(&mut clean, place.seed("latents"), config);
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
            conditioning: self.conditioning(&places, &views, draw.device),
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}

/// Rows of `width` values, by their numbers.
fn rows(values: &[f32], width: usize, numbers: &[usize]) -> Vec<f32> {
    let row = |&number: &usize| values.iter().skip(number * width).take(width);
    numbers.iter().flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_are_drawn_or_the_mean() {
        let view = EncodedView {
            moments: vec![1.0, -2.0, 0.5, 0.5],
            shape: [1, 1, 2],
            time_ids: TimeIds::of_size(8, 16),
        };
        let latents = |sample_latents, seed| {
            let config = crate::TrainConfig {
                sample_latents,
                ..crate::TrainConfig::default()
            };
            let mut latents = Vec::new();
            view.push_latents(&mut latents, seed, &config.validate().unwrap());
            latents
        };
        assert_eq!(latents(false, 0), [1.0, -2.0]);
        assert_eq!(latents(false, 1), [1.0, -2.0]);
        assert_ne!(latents(true, 0), [1.0, -2.0]);
        assert_ne!(latents(true, 0), latents(true, 1));
    }
}
