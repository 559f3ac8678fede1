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
use crate::{Batch, TrainError, ValidTrainConfig};

/// Encoded images and captions, in host memory.
///
/// The VAE's moments are kept, not one draw, so that the latents of an image differ from epoch to epoch as they do when
/// nothing is cached.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    /// Means, then standard deviations of an image's scaled latents, image after image.
    moments: Vec<f32>,
    /// `[channels, height, width]` of the latents.
    shape: [usize; 3],
    /// Embeddings, text after text; what stands for no text is the last.
    contexts: Vec<f32>,
    /// `[text length, width]` of an embedding.
    context_shape: [usize; 2],
    /// What SDXL adds to the texts.
    added: Option<Added>,
    len: usize,
    /// Of the images and captions.
    hash: Sha256,
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
        let mut set = Self {
            moments: Vec::new(),
            shape: [0; 3],
            contexts: Vec::new(),
            context_shape: [0; 2],
            added: None,
            len: 0,
            hash: Sha256::new(),
        };
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

    fn push_images(
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

    fn push_texts(
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

    fn elements(&self) -> usize {
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

    /// The samples of a forward pass: `position` counts samples since the start of the training.
    ///
    /// Every sample's place in the order, draw of latents, noise, timestep and dropped caption depend on the seed and
    /// its position alone, so that a resumed training sees what an uninterrupted one would have seen.
    pub(crate) fn batch(
        &self,
        config: &ValidTrainConfig,
        position: usize,
        timesteps: usize,
        device: &Device,
    ) -> (Batch, Vec<usize>) {
        let elements = self.elements();
        let count = config.batch_size;
        let mut samples = Vec::with_capacity(count);
        let mut latents: Vec<f32> = Vec::with_capacity(count * elements);
        let mut noise: Vec<f32> = Vec::with_capacity(count * elements);
        let mut texts = Vec::with_capacity(count);
        let mut times = Vec::with_capacity(count);
        let mut order = Order::default();
        for position in position..position + count {
            let sample = order.sample(config.seed, position, self.len);
            let seed = |label| derive_seed(config.seed, label, &[position as u64]);
            let draw = normal(seed("latents"), elements);
            let moments = self.moments.iter().skip(2 * sample * elements);
            let (means, deviations) = (moments.clone().take(elements), moments.skip(elements));
            let drawn = means.zip(deviations).zip(draw);
            let spread = if config.sample_latents { 1.0 } else { 0.0 };
            latents.extend(drawn.map(|((mean, deviation), draw)| mean + spread * deviation * draw));
            noise.extend(normal(seed("noise"), elements));
            let mut rng = ChaCha8Rng::seed_from_u64(seed("timestep"));
            times.push(rng.random_range(0..timesteps));
            let dropped = rng.random_bool(config.caption_dropout);
            texts.push(if dropped { self.len } else { sample });
            samples.push(sample);
        }
        let [channels, height, side] = self.shape;
        let shape = [count, channels, height, side];
        let batch = Batch {
            latents: Tensor::from_data(TensorData::new(latents, shape), device),
            noise: Tensor::from_data(TensorData::new(noise, shape), device),
            timesteps: times,
            conditioning: self.conditioning(&texts, device),
        };
        (batch, samples)
    }

    /// What texts, by their numbers, and the images of the set condition on.
    fn conditioning(&self, texts: &[usize], device: &Device) -> Conditioning {
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
            let (batch, _) = set.batch(&config, position, 1000, &Device::flex());
            host(batch.latents).unwrap()
        };
        assert_eq!(latents(false, 0), [1.0, -2.0]);
        assert_eq!(latents(false, 1), [1.0, -2.0]);
        assert_ne!(latents(true, 0), [1.0, -2.0]);
        assert_ne!(latents(true, 0), latents(true, 1));
    }
}
