//! What to draw, and how.

use super::{InitImage, Latents, MicroConditioning};
use crate::DiffusionError;
use crate::schedulers::SchedulerKind;

/// What to draw, and how. The defaults are those of diffusers' pipeline for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToImage {
    /// One prompt an image. Several images of a prompt are that prompt several times, with other seeds.
    pub prompts: Vec<String>,
    /// What not to draw: one for all images, or one an image. None is the empty text, and zeros in SDXL.
    pub negative_prompts: Vec<String>,
    /// Number of denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance (arXiv 2207.12598); no guidance at 1 or below. The model's default,
    /// [`StableDiffusion::default_guidance`](super::StableDiffusion::default_guidance), if none is given.
    pub guidance: Option<f64>,
    /// How far guidance is brought back to the deviation of the prediction without it, 0 (not at all) to 1 (arXiv 2305.08891, section 3.4, which takes 0.7).
    pub guidance_rescale: f64,
    /// Noise that `ddim` adds after every step: 0 (none) to 1 (as much as DDPM; arXiv 2010.02502, formula 16). Other schedulers take 0 alone.
    pub eta: f64,
    /// Layers of the text encoders that are skipped for the prompt; see [`StableDiffusion::encode_texts`](super::StableDiffusion::encode_texts).
    pub clip_skip: Option<usize>,
    /// What SDXL is told about the sizes of the images.
    pub micro_conditioning: MicroConditioning,
    /// Another scheduler than the checkpoint's.
    pub scheduler: Option<SchedulerKind>,
    /// Width in pixels. If none is given, that of the initial image rounded down to the VAE's factor, or the model's native one.
    pub width: Option<usize>,
    /// Height in pixels; default as for the width.
    pub height: Option<usize>,
    /// One seed an image: a picture depends on its own seed and prompt, not on its batch.
    pub seeds: Vec<u64>,
    /// Unit normal noise, one an image, instead of that of the seeds.
    pub init_latents: Option<Latents>,
    /// Pictures to start from instead of pure noise.
    pub init_image: Option<InitImage>,
}

impl TextToImage {
    /// Fifty steps at the model's default guidance, one image a prompt.
    #[must_use]
    pub fn new(prompts: Vec<String>, seeds: Vec<u64>) -> Self {
        Self {
            prompts,
            negative_prompts: Vec::new(),
            steps: 50,
            guidance: None,
            guidance_rescale: 0.0,
            eta: 0.0,
            clip_skip: None,
            micro_conditioning: MicroConditioning::default(),
            scheduler: None,
            width: None,
            height: None,
            seeds,
            init_latents: None,
            init_image: None,
        }
    }

    /// The same in parts of at most `size` images, which together draw the same pictures with less memory.
    ///
    /// # Errors
    ///
    /// [`DiffusionError::Request`] if the size is zero, or the numbers of prompts, seeds and what else there is one of an image differ.
    pub fn batches(&self, size: usize) -> Result<Vec<Self>, DiffusionError> {
        self.check()?;
        if size == 0 {
            return Err(refuse("size of a batch", "at least 1", 0));
        }
        let parts = self.prompts.chunks(size).zip((0..).step_by(size));
        let part = |(prompts, first): (&[String], usize)| Self {
            prompts: prompts.to_vec(),
            negative_prompts: shared_or_own(&self.negative_prompts, first, size),
            seeds: self.seeds.iter().skip(first).take(size).copied().collect(),
            init_latents: self
                .init_latents
                .as_ref()
                .map(|all| all.images(first, size)),
            init_image: self.init_image.as_ref().map(|all| all.part(first, size)),
            ..self.clone()
        };
        Ok(parts.map(part).collect())
    }

    /// Whether what there is one of an image is that many, and the numbers are in their ranges; the number of images.
    pub(super) fn check(&self) -> Result<usize, DiffusionError> {
        let count = self.prompts.len();
        if count == 0 {
            return Err(refuse("prompts", "at least one", "none"));
        }
        let one_each = format!("{count}, one a prompt");
        if self.seeds.len() != count {
            return Err(refuse("number of seeds", one_each, self.seeds.len()));
        }
        if !matches!(self.negative_prompts.len(), 0 | 1) && self.negative_prompts.len() != count {
            let expected = format!("at most one for all, or {one_each}");
            let found = self.negative_prompts.len();
            return Err(refuse("number of negative prompts", expected, found));
        }
        if let Some(guidance) = self.guidance
            && !guidance.is_finite()
        {
            return Err(refuse("guidance", "a finite number", guidance));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(refuse("guidance_rescale", "0 to 1", self.guidance_rescale));
        }
        if let Some(init) = &self.init_image {
            init.check(count)?;
        }
        Ok(count)
    }

    /// The negative prompt of an image, if there is one.
    pub(super) fn negative_prompt(&self, image: usize) -> Option<&str> {
        let own = self.negative_prompts.get(image);
        own.or(self.negative_prompts.first()).map(String::as_str)
    }
}

/// A request that cannot be met.
#[expect(
    clippy::needless_pass_by_value,
    reason = "texts and numbers are given as they are at hand"
)]
pub(super) fn refuse(
    what: &'static str,
    expected: impl ToString,
    found: impl ToString,
) -> DiffusionError {
    DiffusionError::Request {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// What a part of the images gets of a list with one for all or one each.
pub(super) fn shared_or_own<T: Clone>(all: &[T], first: usize, count: usize) -> Vec<T> {
    match all {
        [shared] => vec![shared.clone()],
        _ => all.iter().skip(first).take(count).cloned().collect(),
    }
}
