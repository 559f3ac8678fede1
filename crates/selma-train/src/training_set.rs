//! A data set as the UNet sees it: encoded once, then drawn from at random.

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_diffusion::StableDiffusion;
use selma_diffusion::image::to_tensor;
use selma_diffusion::models::{AddedConditioning, Conditioning, TimeIds};
use selma_diffusion::noise::{derive_seed, normal};
use selma_diffusion::pipeline::TextEmbeddings;
use sha2::{Digest, Sha256};

use crate::factors::host;
use crate::{Batch, Draw, Drawn, Feed, TrainError, ValidTrainConfig};

/// Encoded images and captions, in host memory.
///
/// The VAE's moments are kept, not one draw, so that the latents of an image differ from epoch to epoch as they do when
/// nothing is cached.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    /// Means, then standard deviations of an image's scaled latents, image after image.
    moments: Vec<f32>,
    /// `[channels, height, width]` of the latents.
    pub(crate) shape: [usize; 3],
    /// Embeddings, text after text; what stands for no text is the last.
    contexts: Vec<f32>,
    /// `[text length, width]` of an embedding.
    context_shape: [usize; 2],
    /// What SDXL adds to the texts.
    added: Option<Added>,
    len: usize,
    /// Of the images and captions.
    pub(crate) hash: Sha256,
}

/// The added conditions of all samples.
#[derive(Debug, Clone)]
struct Added {
    /// Pooled texts, one after the other, in the order of the embeddings.
    pooled: Vec<f32>,
    /// Width of a pooled text.
    width: usize,
    /// Those of the images, which all have one size and are neither scaled nor cropped.
    time_ids: TimeIds,
}

impl TrainingSet {
    /// Encodes images with their captions.
    ///
    /// A dropped caption becomes what guidance starts from where there is no negative prompt: the empty text, and zeros in
    /// SDXL.
    ///
    /// # Errors
    ///
    /// If there are none, the images differ in size, or a caption cannot be tokenized; and the first error of the samples.
    pub fn encode<E: From<TrainError>>(
        pipeline: &StableDiffusion,
        samples: impl IntoIterator<Item = Result<(RgbImage, String), E>>,
    ) -> Result<Self, E> {
        const BATCH: usize = 16;
        let mut set = Self::default();
        let mut samples = samples.into_iter().peekable();
        while samples.peek().is_some() {
            let batch: Vec<_> = samples.by_ref().take(BATCH).collect::<Result<_, _>>()?;
            for (image, caption) in &batch {
                set.hash.update(Sha256::digest(image.as_raw()));
                set.hash.update(Sha256::digest(caption));
            }
            let (images, captions): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            set.push_images(pipeline, &images)?;
            let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
            let embeddings = pipeline.encode_texts(&captions, None);
            set.push_texts(pipeline, embeddings.map_err(TrainError::from)?)?;
        }
        if set.len == 0 {
            return Err(TrainError::NoData.into());
        }
        let none = pipeline.encode_negative_texts(&[None]);
        set.push_texts(pipeline, none.map_err(TrainError::from)?)?;
        Ok(set)
    }

    pub(crate) fn push_images(
        &mut self,
        pipeline: &StableDiffusion,
        images: &[RgbImage],
    ) -> Result<(), TrainError> {
        let factor = pipeline.vae_config.factor() as u32;
        for image in images {
            let (width, height) = image.dimensions();
            if width % factor != 0 || height % factor != 0 {
                return Err(TrainError::Setting {
                    field: "size of the images",
                    expected: format!("multiples of {factor}"),
                    found: format!("{width}x{height}"),
                });
            }
        }
        let moments = pipeline.vae.encode(to_tensor(images, pipeline.device())?);
        let [_, channels, height, width] = moments.mean.dims();
        let shape = [channels, height, width];
        if self.len > 0 && shape != self.shape {
            return Err(TrainError::Setting {
                field: "size of the images",
                expected: format!("latents of {:?} as the first", self.shape),
                found: format!("{shape:?}"),
            });
        }
        self.shape = shape;
        let scale = pipeline.vae_config.scaling_factor;
        let means = host(moments.mean.mul_scalar(scale))?;
        let deviations = host(moments.logvar.mul_scalar(0.5).exp().mul_scalar(scale))?;
        let elements = self.elements();
        for (mean, deviation) in means.chunks(elements).zip(deviations.chunks(elements)) {
            self.moments.extend(mean);
            self.moments.extend(deviation);
        }
        self.len += images.len();
        Ok(())
    }

    pub(crate) fn push_texts(
        &mut self,
        pipeline: &StableDiffusion,
        embeddings: TextEmbeddings,
    ) -> Result<(), TrainError> {
        let [_, length, width] = embeddings.context.dims();
        self.context_shape = [length, width];
        self.contexts.extend(host(embeddings.context)?);
        if let Some(pooled) = embeddings.pooled {
            let [_, width] = pooled.dims();
            let [_, height, side] = self.shape.map(|side| side * pipeline.vae_config.factor());
            let added = self.added.get_or_insert_with(|| Added {
                pooled: Vec::new(),
                width,
                time_ids: TimeIds::of_size(height, side),
            });
            added.pooled.extend(host(pooled)?);
        }
        Ok(())
    }

    /// SHA-256 of the images' pixels and the captions, in their order: in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no samples; never for a set that [`encode`](Self::encode) made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the latents of a sample: drawn from the VAE's distribution by a seed, or its mean.
    pub(crate) fn push_latents(
        &self,
        latents: &mut Vec<f32>,
        sample: usize,
        seed: u64,
        config: &ValidTrainConfig,
    ) {
        let elements = self.elements();
        let draw = normal(seed, elements);
        let moments = self.moments.iter().skip(2 * sample * elements);
        let (means, deviations) = (moments.clone().take(elements), moments.skip(elements));
        let drawn = means.zip(deviations).zip(draw);
        let spread = if config.sample_latents { 1.0 } else { 0.0 };
        latents.extend(drawn.map(|((mean, deviation), draw)| mean + spread * deviation * draw));
    }

    /// The number of the text that a sample gets.
    pub(crate) fn text(&self, place: &Place) -> usize {
        if place.dropped {
            self.len
        } else {
            place.sample
        }
    }

    /// Values of `count` samples as latents.
    pub(crate) fn tensor(&self, values: Vec<f32>, count: usize, device: &Device) -> Tensor<4> {
        let [channels, height, width] = self.shape;
        Tensor::from_data(
            TensorData::new(values, [count, channels, height, width]),
            device,
        )
    }

    /// What texts, by their numbers, and the images of the set condition on.
    pub(crate) fn conditioning(&self, texts: &[usize], device: &Device) -> Conditioning {
        let [length, width] = self.context_shape;
        let count = texts.len();
        let context = rows(&self.contexts, length * width, texts);
        let added = self.added.as_ref().map(|added| {
            let pooled = rows(&added.pooled, added.width, texts);
            AddedConditioning {
                text_embeds: Tensor::from_data(
                    TensorData::new(pooled, [count, added.width]),
                    device,
                ),
                time_ids: vec![added.time_ids; count],
            }
        });
        Conditioning {
            context: Tensor::from_data(TensorData::new(context, [count, length, width]), device),
            added,
        }
    }
}

impl Feed<Batch> for TrainingSet {
    fn draw(&self, draw: &Draw<'_>) -> Result<Drawn<Batch>, TrainError> {
        let (config, elements) = (draw.config, self.elements());
        let count = config.batch_size;
        let mut latents: Vec<f32> = Vec::with_capacity(count * elements);
        let mut noise: Vec<f32> = Vec::with_capacity(count * elements);
        let mut input_noise: Vec<f32> = Vec::new();
        let places = Place::of_pass(draw, self.len);
        for place in &places {
            self.push_latents(&mut latents, place.sample, place.seed("latents"), config);
            let first = noise.len();
            noise.extend(place.noise(self.shape));
            if config.input_perturbation > 0.0 {
                let more = normal(place.seed("input perturbation"), elements);
                let more = more
                    .into_iter()
                    .map(|x| config.input_perturbation as f32 * x);
                input_noise.extend(noise.iter().skip(first).zip(more).map(|(x, y)| x + y));
            }
        }
        let perturbed = !input_noise.is_empty();
        let texts: Vec<usize> = places.iter().map(|place| self.text(place)).collect();
        let batch = Batch {
            latents: self.tensor(latents, count, draw.device),
            noise: self.tensor(noise, count, draw.device),
            input_noise: perturbed.then(|| self.tensor(input_noise, count, draw.device)),
            timesteps: places.iter().map(|place| place.timestep).collect(),
            conditioning: self.conditioning(&texts, draw.device),
        };
        let samples = places.iter().map(|place| place.sample).collect();
        Ok(Drawn { batch, samples })
    }
}

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
    /// Those of a forward pass over a set of `len` samples.
    pub(crate) fn of_pass(draw: &Draw<'a>, len: usize) -> Vec<Self> {
        let (config, first) = (draw.config, draw.position());
        let mut order = Order::default();
        let place = |position| {
            let seed = derive_seed(config.seed, "timestep", &[position as u64]);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            Self {
                config,
                position,
                sample: order.sample(config.seed, position, len),
                timestep: rng.random_range(0..draw.timesteps),
                dropped: rng.random_bool(config.caption_dropout),
            }
        };
        (first..first + config.batch_size).map(place).collect()
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

/// Rows of `width` values, by their numbers.
fn rows(values: &[f32], width: usize, numbers: &[usize]) -> Vec<f32> {
    let row = |&number: &usize| values.iter().skip(number * width).take(width);
    numbers.iter().flat_map(row).copied().collect()
}

/// The order of samples: a new permutation each epoch.
#[derive(Debug, Default)]
pub(crate) struct Order {
    epoch: Option<usize>,
    permutation: Vec<usize>,
}

impl Order {
    /// The sample at a position since the start of the training.
    pub(crate) fn sample(&mut self, seed: u64, position: usize, len: usize) -> usize {
        let epoch = position / len;
        if self.epoch != Some(epoch) {
            self.permutation = (0..len).collect();
            let seed = derive_seed(seed, "epoch", &[epoch as u64]);
            self.permutation
                .shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            self.epoch = Some(epoch);
        }
        self.permutation
            .get(position % len)
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_shows_every_sample_once_in_another_order() {
        let mut order = Order::default();
        let draw: Vec<usize> = (0..30)
            .map(|position| order.sample(7, position, 10))
            .collect();
        for epoch in draw.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(draw[..10], draw[10..20]);
        assert_eq!(Order::default().sample(7, 23, 10), draw[23]);
    }

    #[test]
    fn latents_are_drawn_or_the_mean() {
        let set = TrainingSet {
            moments: vec![1.0, -2.0, 0.5, 0.5],
            shape: [1, 1, 2],
            contexts: vec![0.0; 2],
            context_shape: [1, 1],
            added: None,
            len: 1,
            hash: Sha256::new(),
        };
        let latents = |sample_latents, position| {
            let config = crate::TrainConfig {
                batch_size: 1,
                sample_latents,
                ..crate::TrainConfig::default()
            };
            let config = config.validate().unwrap();
            let mut latents = Vec::new();
            let seed = derive_seed(config.seed, "latents", &[position]);
            set.push_latents(&mut latents, 0, seed, &config);
            latents
        };
        assert_eq!(latents(false, 0), [1.0, -2.0]);
        assert_eq!(latents(false, 1), [1.0, -2.0]);
        assert_ne!(latents(true, 0), [1.0, -2.0]);
        assert_ne!(latents(true, 0), latents(true, 1));
    }
}
