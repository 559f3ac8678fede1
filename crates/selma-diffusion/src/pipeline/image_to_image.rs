//! Starting from pictures: SDEdit, arXiv 2108.01073, as `StableDiffusionImg2ImgPipeline` does it.

use image::RgbImage;

use super::finite::{blame, require_finite};
use super::request::{refuse, shared_or_own};
use super::{Latents, StableDiffusion};
use crate::image::{Filter, read, resize, to_tensor};
use crate::models::DiagonalGaussian;
use crate::noise::derive_seed;
use crate::{DiffusionError, Origin};

/// Pictures that a run starts from instead of pure noise.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// One for all images, or one each.
    pub pictures: Pictures,
    /// How much of the run is made, 0 to 1: of S steps the last `S * strength`, rounded down, from a picture with as much noise as a run has there. At 1 little
    /// of the picture is left. The model's default, [`StableDiffusion::default_strength`], if none is given.
    pub strength: Option<f64>,
}

/// Pictures, encoded or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Pictures {
    /// As pixels; they are resized to the size that is drawn.
    Images(Vec<RgbImage>),
    /// As latents, multiplied by the VAE's scaling factor, as [`StableDiffusion::encode`] makes them and a run leaves them.
    Latents(Latents),
}

impl InitImage {
    /// One picture for all images.
    #[must_use]
    pub fn new(picture: RgbImage, strength: f64) -> Self {
        Self {
            pictures: Pictures::Images(vec![picture]),
            strength: Some(strength),
        }
    }

    /// Whether there are as many as `images` need, and the strength is in its range.
    pub(super) fn check(&self, images: usize) -> Result<(), DiffusionError> {
        if let Some(strength) = self.strength
            && !(0.0..=1.0).contains(&strength)
        {
            return Err(refuse("strength", "0 to 1", strength));
        }
        let found = match &self.pictures {
            Pictures::Images(all) => all.len(),
            Pictures::Latents(all) => all.shape[0],
        };
        if found == 1 || found == images {
            return Ok(());
        }
        let expected = format!("one for all, or {images}, one a prompt");
        Err(refuse("number of initial images", expected, found))
    }

    /// What a part of the images starts from.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        let pictures = match &self.pictures {
            Pictures::Images(all) => Pictures::Images(shared_or_own(all, first, count)),
            Pictures::Latents(all) if all.shape[0] == 1 => Pictures::Latents(all.clone()),
            Pictures::Latents(all) => Pictures::Latents(all.images(first, count)),
        };
        Self {
            pictures,
            strength: self.strength,
        }
    }

    /// Height and width in pixels of the first picture, rounded down to the VAE's factor.
    pub(super) fn size(&self, factor: usize) -> [usize; 2] {
        match &self.pictures {
            Pictures::Images(all) => {
                let (width, height) = all.first().map_or((0, 0), RgbImage::dimensions);
                [height, width].map(|side| side as usize / factor * factor)
            }
            Pictures::Latents(all) => {
                let [_, _, height, width] = all.shape;
                [height, width].map(|side| side * factor)
            }
        }
    }
}

/// How many of the steps are left out.
///
/// # Errors
/// None would be left.
pub(super) fn skipped(steps: usize, strength: f64) -> Result<usize, DiffusionError> {
    // Cut off as in Python, where 50 * 0.58 is 28.99...
    let made = ((steps as f64 * strength) as usize).min(steps);
    if made > 0 {
        return Ok(steps - made);
    }
    let expected = format!("at least 1/{steps}, or no step of {steps} is left");
    Err(refuse("strength", expected, strength))
}

impl StableDiffusion {
    /// How much of a run is made where an initial image has no strength: 0.8, and 0.3 for SDXL, as in diffusers.
    #[must_use]
    pub fn default_strength(&self) -> f64 {
        match self.text_encoder_2 {
            None => 0.8,
            Some(_) => 0.3,
        }
    }

    /// Encodes pictures of one size, whose sides are multiples of the VAE's factor: latents drawn from the VAE's distribution by each seed, multiplied by its
    /// scaling factor. There is one picture for all seeds, or one each.
    ///
    /// # Errors
    ///
    /// If the pictures are not as many or not of a size as described, or the latents are not finite.
    pub fn encode(&self, images: &[RgbImage], seeds: &[u64]) -> Result<Latents, DiffusionError> {
        if images.is_empty() || images.len() > 1 && images.len() != seeds.len() {
            let expected = format!("one for all, or {}, one a seed", seeds.len());
            return Err(refuse("number of pictures", expected, images.len()));
        }
        let factor = self.vae_config.factor();
        let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
        for (what, side) in [("width", width), ("height", height)] {
            if side == 0 || !(side as usize).is_multiple_of(factor) {
                return Err(refuse(what, format!("a multiple of {factor}"), side));
            }
        }
        // One by one, so that a picture does not depend on its batch.
        let pixels = to_tensor(images, self.device())?.cast(self.vae_dtype());
        let posteriors: Vec<DiagonalGaussian> = pixels
            .split(1, 0)
            .into_iter()
            .map(|image| match self.vae_tiling {
                Some(tiling) => tiling.encode(&self.vae, image),
                None => self.vae.encode(image),
            })
            .collect();
        let mut values = Vec::new();
        let mut shape = [seeds.len(), 0, 0, 0];
        for (index, seed) in seeds.iter().enumerate() {
            let Some(posterior) = posteriors.get(index).or(posteriors.first()) else {
                continue;
            };
            let [_, channels, height, width] = posterior.mean.dims();
            shape = [seeds.len(), channels, height, width];
            let seed = derive_seed(*seed, "init image", &[]);
            let noise = Latents::noise(&[seed], channels, height, width).to_tensor(self.device());
            let latents = posterior.sample(noise.cast(self.vae_dtype()));
            values.extend(read(latents.mul_scalar(self.vae_config.scaling_factor))?);
        }
        let latents = Latents { values, shape };
        require_finite(
            &latents.values,
            latents.len_of_image(),
            seeds.len(),
            Origin::Encoder,
        )
        .map_err(|error| blame(error, &self.vae))?;
        Ok(latents)
    }

    /// The clean latents that a run starts from, in the shape that it has.
    pub(super) fn init_image_latents(
        &self,
        init: &InitImage,
        seeds: &[u64],
        shape: [usize; 4],
    ) -> Result<Latents, DiffusionError> {
        let [count, _, height, width] = shape;
        let mut latents = match &init.pictures {
            Pictures::Latents(latents) => {
                let (values, len) = (&latents.values, latents.len_of_image());
                require_finite(values, len, latents.shape[0], Origin::InitImage)?;
                latents.clone()
            }
            Pictures::Images(images) => {
                let factor = self.vae_config.factor();
                let [height, width] = [height, width].map(|side| (side * factor) as u32);
                let resized = images
                    .iter()
                    .map(|image| resize(image, width, height, Filter::Lanczos));
                self.encode(&resized.collect::<Vec<_>>(), seeds)?
            }
        };
        if latents.shape[0] == 1 {
            latents.values = latents.values.repeat(count);
            latents.shape[0] = count;
        }
        if latents.shape == shape {
            return Ok(latents);
        }
        Err(refuse(
            "shape of the initial image's latents",
            format!("{shape:?}"),
            format!("{:?}", latents.shape),
        ))
    }
}
