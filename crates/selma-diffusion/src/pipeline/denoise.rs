//! The denoising loop.

use std::ops::ControlFlow;

use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::conditions::Conditions;
use super::finite::{blame, require_finite};
use super::guidance::guided;
use super::image_to_image::skipped;
use super::request::refuse;
use super::{Latents, StableDiffusion, TextToImage, Truncated};
use crate::image::{from_values, read};
use crate::models::Conditioning;
use crate::noise::derive_seed;
use crate::schedulers::{Scheduler, build_with_eta};
use crate::{DiffusionError, Origin};

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
    /// If the request does not fit the model, numbers become not finite, or the observer stops.
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
    /// If the latents are not of the VAE's channels or not finite, the pictures are not finite, or the device fails.
    pub fn decode(&self, latents: &Latents) -> Result<Vec<RgbImage>, DiffusionError> {
        let (images, len) = (latents.shape[0], latents.len_of_image());
        let channels = self.vae_config.latent_channels;
        let whole = latents.shape[1] == channels && latents.values.len() == images * len;
        if !whole || latents.values.is_empty() {
            let expected = format!("[images, {channels}, height, width]");
            let found = format!("{:?} with {} values", latents.shape, latents.values.len());
            return Err(refuse("shape of the latents to decode", expected, found));
        }
        require_finite(&latents.values, len, images, Origin::Latents)?;
        let scaled = latents
            .to_tensor(self.device())
            .div_scalar(self.vae_config.scaling_factor)
            .cast(self.vae_dtype());
        let (mut values, mut shape) = (Vec::new(), [0; 4]);
        // One by one: the memory of the VAE is that of one picture, which does not depend on its batch.
        for part in scaled.split(1, 0) {
            let picture = match self.vae_tiling {
                None => self.vae.decode(part),
                Some(tiling) => tiling.decode(&self.vae, part),
            };
            shape = picture.dims();
            values.extend(read(picture)?);
        }
        let len = shape.iter().skip(1).product();
        require_finite(&values, len, images, Origin::Decoder)
            .map_err(|error| blame(error, &self.vae))?;
        from_values(&values, shape)
    }

    fn denoise(
        &self,
        request: &TextToImage,
        observer: &mut Observer<'_>,
    ) -> Result<Latents, DiffusionError> {
        let noise = self.initial_noise(request)?;
        let kind = self.scheduler_for(request.scheduler)?;
        let (config, steps) = (&self.scheduler_config, request.steps);
        let mut scheduler = build_with_eta(kind, config, steps, request.eta)?;
        let (mut latents, first) = self.start(request, noise, scheduler.as_ref())?;
        let guidance = request.guidance.unwrap_or(self.default_guidance());
        let (conditioning, truncated) = self.conditions(request, &latents, guidance > 1.0)?;
        let (len, images) = (latents.len_of_image(), latents.shape[0]);
        let mut noise = StepNoise::new(&request.seeds, len);
        let timesteps = scheduler.timesteps().to_vec();
        let total = timesteps.len().saturating_sub(first);
        for (step, (index, &timestep)) in (1..).zip(timesteps.iter().enumerate().skip(first)) {
            let mut input = latents.clone();
            scheduler.scale_model_input(&mut input.values, index)?;
            let mut prediction = self.predict(&input, timestep, &conditioning)?;
            require_finite(&prediction, len, images, Origin::UNet { step, total })
                .map_err(|error| blame(error, &self.unet))?;
            if guidance > 1.0 {
                prediction = guided(&prediction, len, guidance, request.guidance_rescale);
            }
            scheduler.step(&prediction, index, &mut latents.values, &mut |slice| {
                noise.fill(slice);
            })?;
            require_finite(
                &latents.values,
                len,
                images,
                Origin::Scheduler { step, total },
            )?;
            let state = Denoising {
                step,
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

    /// The latents that a run starts from, and the index of its first call.
    fn start(
        &self,
        request: &TextToImage,
        mut noise: Latents,
        scheduler: &dyn Scheduler,
    ) -> Result<(Latents, usize), DiffusionError> {
        let Some(init) = &request.init_image else {
            let sigma = scheduler.init_noise_sigma() as f32;
            noise.values.iter_mut().for_each(|value| *value *= sigma);
            return Ok((noise, 0));
        };
        let strength = init.strength.unwrap_or(self.default_strength());
        let first = skipped(request.steps, strength)? * scheduler.order();
        let clean = self.init_image_latents(init, &request.seeds, noise.shape)?;
        noise.values = scheduler.add_noise(&clean.values, &noise.values, first)?;
        Ok((noise, first))
    }

    /// What the UNet says of the latents; twice, first without the prompt, where the conditions are twice as many.
    fn predict(
        &self,
        input: &Latents,
        timestep: f64,
        conditioning: &Conditioning,
    ) -> Result<Vec<f32>, DiffusionError> {
        let sample = input.to_tensor(self.device()).cast(self.dtype());
        let times = vec![timestep; conditioning.context.dims()[0]];
        let copies = times.len() / input.shape[0].max(1);
        let samples = sample.repeat_dim(0, copies);
        read(self.unet.forward(samples, &times, conditioning)?)
    }

    /// What the images are conditioned on, and the texts that were cut.
    fn conditions(
        &self,
        request: &TextToImage,
        latents: &Latents,
        guided: bool,
    ) -> Result<(Conditioning, Vec<Truncated>), DiffusionError> {
        let prompts: Vec<&str> = request.prompts.iter().map(String::as_str).collect();
        let images = 0..prompts.len();
        let negative_prompts: Vec<Option<&str>> =
            images.map(|image| request.negative_prompt(image)).collect();
        let [count, _, height, width] = latents.shape;
        let (conditioning, truncated) = self.conditioning(&Conditions {
            prompts: &prompts,
            negative_prompts: guided.then_some(&negative_prompts),
            clip_skip: request.clip_skip,
            size: [height, width].map(|side| side * self.vae_config.factor()),
            micro: &request.micro_conditioning,
            from_image: request.init_image.is_some(),
        })?;
        let [_, length, width] = conditioning.context.dims();
        let texts = read(conditioning.context.clone())?;
        require_finite(&texts, length * width, count, Origin::TextEncoder).map_err(|error| {
            let error = blame(error, &self.text_encoder.model);
            match &self.text_encoder_2 {
                Some(encoder) => blame(error, &encoder.model),
                None => error,
            }
        })?;
        if let (Some(added), Some(encoder)) = (&conditioning.added, &self.text_encoder_2) {
            let [_, width] = added.text_embeds.dims();
            let pooled = read(added.text_embeds.clone())?;
            require_finite(&pooled, width, count, Origin::PooledText)
                .map_err(|error| blame(error, &encoder.model))?;
        }
        Ok((conditioning, truncated))
    }

    /// Unit normal noise in the shape of the run.
    fn initial_noise(&self, request: &TextToImage) -> Result<Latents, DiffusionError> {
        let count = request.check()?;
        let channels = self.unet_config.in_channels;
        let [height, width] = self.latent_size(request)?;
        let expected = [count, channels, height, width];
        match &request.init_latents {
            None => Ok(Latents::noise(&request.seeds, channels, height, width)),
            Some(latents) if latents.shape == expected => {
                let len = latents.len_of_image();
                require_finite(&latents.values, len, count, Origin::InitLatents)?;
                Ok(latents.clone())
            }
            Some(latents) => Err(refuse(
                "shape of the initial latents",
                format!("{expected:?}"),
                format!("{:?}", latents.shape),
            )),
        }
    }

    /// Height and width of the latents.
    fn latent_size(&self, request: &TextToImage) -> Result<[usize; 2], DiffusionError> {
        let factor = self.vae_config.factor();
        let native = self.unet_config.sample_size.map(|size| [size * factor; 2]);
        let of_image = request.init_image.as_ref().map(|init| init.size(factor));
        let default = of_image.or(native);
        let side = |what, given: Option<usize>, default: Option<usize>| {
            let none = || refuse(what, "a number of pixels", "none, nor a native one");
            let pixels = given.or(default).ok_or_else(none)?;
            if pixels == 0 || !pixels.is_multiple_of(factor) {
                return Err(refuse(what, format!("a multiple of {factor}"), pixels));
            }
            Ok(pixels / factor)
        };
        Ok([
            side("height", request.height, default.map(|[height, _]| height))?,
            side("width", request.width, default.map(|[_, width]| width))?,
        ])
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
