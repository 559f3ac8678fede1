//! Drawing pictures from prompts.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::conditions::Conditions;
use super::{Latents, MicroConditioning, StableDiffusion, Truncated};
use crate::DiffusionError;
use crate::image::{from_tensor, read};
use crate::models::Conditioning;
use crate::noise::derive_seed;
use crate::schedulers::{SchedulerKind, build};

/// What to draw, and how. The defaults are those of diffusers' pipeline for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToImage {
    /// One prompt an image.
    pub prompts: Vec<String>,
    /// What not to draw; the same for all images. None is the empty text, and zeros in SDXL.
    pub negative_prompt: Option<String>,
    /// Number of denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance (arXiv 2207.12598); no guidance at 1 or below. The model's default,
    /// [`StableDiffusion::default_guidance`], if none is given.
    pub guidance: Option<f64>,
    /// Layers of the text encoders that are skipped for the prompt; see [`StableDiffusion::encode_texts`].
    pub clip_skip: Option<usize>,
    /// What SDXL is told about the sizes of the images.
    pub micro_conditioning: MicroConditioning,
    /// Another scheduler than the checkpoint's.
    pub scheduler: Option<SchedulerKind>,
    /// Width in pixels; the model's native one if none is given.
    pub width: Option<usize>,
    /// Height in pixels; the model's native one if none is given.
    pub height: Option<usize>,
    /// One seed an image: a picture depends on its own seed and prompt, not on its batch.
    pub seeds: Vec<u64>,
    /// Latents of unit variance to start from, instead of those of the seeds.
    pub init_latents: Option<Latents>,
}

impl TextToImage {
    /// Fifty steps at the model's default guidance, one image a prompt.
    #[must_use]
    pub fn new(prompts: Vec<String>, seeds: Vec<u64>) -> Self {
        Self {
            prompts,
            negative_prompt: None,
            steps: 50,
            guidance: None,
            clip_skip: None,
            micro_conditioning: MicroConditioning::default(),
            scheduler: None,
            width: None,
            height: None,
            seeds,
            init_latents: None,
        }
    }
}

/// The state after one call of the UNet.
#[derive(Debug, Clone, Copy)]
pub struct Denoising<'a> {
    /// Calls done.
    pub step: usize,
    /// Calls in all; some schedulers make more calls than steps.
    pub total: usize,
    /// Latents of all images, one after the other.
    pub latents: &'a [f32],
    /// Texts that were cut, because they are longer than the text encoder takes; the same at every step.
    pub truncated: &'a [Truncated],
}

/// Receives the state after each step and may stop the run by [`ControlFlow::Break`].
pub type Observer<'a> = dyn FnMut(Denoising<'_>) -> ControlFlow<()> + 'a;

/// What was drawn.
#[derive(Debug, Clone)]
pub struct Generated {
    /// One image a prompt.
    pub images: Vec<RgbImage>,
    /// The final latents, before they are divided by the VAE's scaling factor.
    pub latents: Latents,
}

impl StableDiffusion {
    /// Draws pictures.
    ///
    /// # Errors
    ///
    /// If the request does not fit the model, the latents become not finite, or the observer stops.
    pub fn generate(
        &self,
        request: &TextToImage,
        observer: &mut Observer<'_>,
    ) -> Result<Generated, DiffusionError> {
        let latents = self.denoise(request, observer)?;
        let images = self.decode(&latents)?;
        Ok(Generated { images, latents })
    }

    /// Decodes latents as [`generate`](Self::generate) leaves them.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn decode(&self, latents: &Latents) -> Result<Vec<RgbImage>, DiffusionError> {
        let scaled = latents
            .to_tensor(self.device())
            .div_scalar(self.vae_config.scaling_factor);
        from_tensor(self.vae.decode(scaled.cast(self.vae_dtype())))
    }

    fn denoise(
        &self,
        request: &TextToImage,
        observer: &mut Observer<'_>,
    ) -> Result<Latents, DiffusionError> {
        let mut latents = self.initial_latents(request)?;
        let kind = request.scheduler.unwrap_or(self.scheduler);
        let mut scheduler = build(kind, &self.scheduler_config, request.steps)?;
        let sigma = scheduler.init_noise_sigma() as f32;
        for value in &mut latents.values {
            *value *= sigma;
        }
        let guidance = request.guidance.unwrap_or(self.default_guidance());
        let guided = guidance > 1.0;
        let (conditioning, truncated) = self.conditions(request, &latents, guided)?;
        let mut noise = StepNoise::new(&request.seeds, latents.len_of_image());
        let timesteps = scheduler.timesteps().to_vec();
        let total = timesteps.len();
        let batch = request.prompts.len();
        for (index, &timestep) in timesteps.iter().enumerate() {
            let mut input = latents.clone();
            scheduler.scale_model_input(&mut input.values, index)?;
            let input = input.to_tensor(self.device()).cast(self.dtype());
            let prediction = if guided {
                let doubled = Tensor::cat(vec![input.clone(), input], 0);
                let times = vec![timestep; 2 * batch];
                let both = self.unet.forward(doubled, &times, &conditioning)?;
                let without = both.clone().narrow(0, 0, batch);
                let with = both.narrow(0, batch, batch);
                without.clone() + (with - without).mul_scalar(guidance)
            } else {
                let times = vec![timestep; batch];
                self.unet.forward(input, &times, &conditioning)?
            };
            let prediction = read(prediction)?;
            scheduler.step(&prediction, index, &mut latents.values, &mut |slice| {
                noise.fill(slice);
            })?;
            if latents.values.iter().any(|value| !value.is_finite()) {
                return Err(DiffusionError::NonFinite {
                    step: index + 1,
                    total,
                });
            }
            let state = Denoising {
                step: index + 1,
                total,
                latents: &latents.values,
                truncated: &truncated,
            };
            if observer(state).is_break() {
                return Err(DiffusionError::Cancelled);
            }
        }
        Ok(latents)
    }

    /// What the request's images are conditioned on, and the texts that were cut.
    fn conditions(
        &self,
        request: &TextToImage,
        latents: &Latents,
        guided: bool,
    ) -> Result<(Conditioning, Vec<Truncated>), DiffusionError> {
        let prompts: Vec<&str> = request.prompts.iter().map(String::as_str).collect();
        let negative_prompts = vec![request.negative_prompt.as_deref(); prompts.len()];
        let [_, _, height, width] = latents.shape;
        self.conditioning(&Conditions {
            prompts: &prompts,
            negative_prompts: guided.then_some(&negative_prompts),
            clip_skip: request.clip_skip,
            size: [height, width].map(|side| side * self.vae_config.factor()),
            micro: &request.micro_conditioning,
        })
    }

    fn initial_latents(&self, request: &TextToImage) -> Result<Latents, DiffusionError> {
        let wrong = |what, expected: String, found: String| DiffusionError::Request {
            what,
            expected,
            found,
        };
        let count = request.prompts.len();
        if count == 0 {
            return Err(wrong(
                "prompts",
                "at least one".to_owned(),
                "none".to_owned(),
            ));
        }
        if request.seeds.len() != count {
            let expected = format!("{count}, one a prompt");
            return Err(wrong(
                "number of seeds",
                expected,
                request.seeds.len().to_string(),
            ));
        }
        let factor = self.vae_config.factor();
        let channels = self.unet_config.in_channels;
        let native = self.unet_config.sample_size.map(|size| size * factor);
        let mut sides = [0; 2];
        for ((side, given), what) in sides
            .iter_mut()
            .zip([request.height, request.width])
            .zip(["height", "width"])
        {
            let pixels = given.or(native).ok_or_else(|| {
                wrong(
                    what,
                    "a number of pixels".to_owned(),
                    "none, nor a native one".to_owned(),
                )
            })?;
            if pixels == 0 || pixels % factor != 0 {
                return Err(wrong(
                    what,
                    format!("a multiple of {factor}"),
                    pixels.to_string(),
                ));
            }
            *side = pixels / factor;
        }
        let [height, width] = sides;
        let expected = [count, channels, height, width];
        match &request.init_latents {
            None => Ok(Latents::noise(&request.seeds, channels, height, width)),
            Some(latents) if latents.shape == expected => Ok(latents.clone()),
            Some(latents) => Err(wrong(
                "shape of the initial latents",
                format!("{expected:?}"),
                format!("{:?}", latents.shape),
            )),
        }
    }
}

/// The noise that random schedulers add, image by image from seeds of their own.
struct StepNoise {
    rngs: Vec<ChaCha8Rng>,
    image: usize,
}

impl StepNoise {
    fn new(seeds: &[u64], image: usize) -> Self {
        let rng = |&seed| ChaCha8Rng::seed_from_u64(derive_seed(seed, "step noise", &[]));
        Self {
            rngs: seeds.iter().map(rng).collect(),
            image: image.max(1),
        }
    }

    fn fill(&mut self, slice: &mut [f32]) {
        for (image, rng) in slice.chunks_mut(self.image).zip(&mut self.rngs) {
            for value in image {
                *value = StandardNormal.sample(rng);
            }
        }
    }
}
