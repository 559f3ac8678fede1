//! Pictures as they are shown: resized, cut and mirrored, in as many views as there are to choose from.

use std::num::NonZeroU64;

use image::RgbImage;
use selma_dataset::Size;
use selma_diffusion::StableDiffusion;
use selma_diffusion::models::TimeIds;
use selma_diffusion::noise::normal;
use sha2::{Digest, Sha256};

use crate::encoded::Encoded;
use crate::encodings::Encodings;
use crate::place::Place;
use crate::{TrainError, ValidTrainConfig};

/// Pictures of samples.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// The views of every picture, which have one size.
    pictures: Vec<Vec<ShownView>>,
    /// Of the pixels of all views.
    pub(crate) hash: Sha256,
}

/// What is shown of a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownView {
    /// Number of its latents.
    pub(crate) latents: usize,
    /// `[channels, height, width]` of them.
    pub(crate) shape: [usize; 3],
    /// What SDXL is told of the picture's size and the place of the part.
    pub(crate) time_ids: TimeIds,
}

impl Shown {
    /// Adds pictures, whose views are encoded if need be.
    pub(crate) fn push(
        &mut self,
        encodings: &mut Encodings,
        pipeline: &StableDiffusion,
        config: &ValidTrainConfig,
        pictures: &[RgbImage],
    ) -> Result<(), TrainError> {
        let geometry = config.geometry.validate()?;
        let mut views = Vec::new();
        for (sample, picture) in (self.pictures.len()..).zip(pictures) {
            let original = Size::of(picture);
            for number in 0..geometry.views(original, config.crops)?.get() {
                let view = geometry.view(original, config.seed, sample, number)?;
                views.push((sample, picture, view));
            }
        }
        let parts = views.iter().map(|(_, picture, view)| {
            let part = view.apply(picture)?;
            let pixels = Sha256::digest(part.as_raw());
            self.hash.update(pixels);
            Ok((part, pixels.into()))
        });
        let latents = encodings.pictures(pipeline, parts)?;
        let all = self.pictures.len() + pictures.len();
        self.pictures.resize_with(all, Vec::new);
        for ((sample, _, view), latents) in views.into_iter().zip(latents) {
            if let Some(picture) = self.pictures.get_mut(sample) {
                picture.push(ShownView {
                    latents,
                    shape: encodings.shape(latents),
                    time_ids: TimeIds::from(view.time_ids()),
                });
            }
        }
        Ok(())
    }

    /// Number of pictures.
    pub(crate) fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Sizes of the pictures' latents.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        let size = |views: &Vec<ShownView>| {
            let [_, height, width] = views.first().map_or([0; 3], |view| view.shape);
            Size {
                width: width as u32,
                height: height as u32,
            }
        };
        self.pictures.iter().map(size).collect()
    }

    /// The view of a sample that is shown at its place.
    pub(crate) fn view(&self, place: &Place<'_>) -> Result<&ShownView, TrainError> {
        let views = self.pictures.get(place.sample).ok_or(TrainError::NoData)?;
        let number = place.view(NonZeroU64::new(views.len() as u64));
        views.get(number as usize).ok_or(TrainError::NoData)
    }
}

/// Appends latents of a picture: drawn from the VAE's distribution by a seed, or its mean.
pub(crate) fn push_latents(
    latents: &mut Vec<f32>,
    picture: &Encoded,
    seed: u64,
    config: &ValidTrainConfig,
) {
    let means = &picture.first.values;
    let Some(deviations) = picture.second.as_ref().filter(|_| config.sample_latents) else {
        latents.extend(means);
        return;
    };
    let draws = normal(seed, means.len());
    let drawn = means.iter().zip(&deviations.values).zip(draws);
    latents.extend(drawn.map(|((mean, deviation), draw)| mean + deviation * draw));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::Array;

    #[test]
    fn latents_are_drawn_or_the_mean() {
        let array = |values: [f32; 2]| Array {
            shape: vec![1, 1, 2],
            values: values.to_vec(),
        };
        let picture = Encoded {
            first: array([1.0, -2.0]),
            second: Some(array([0.5, 0.5])),
        };
        let latents = |sample_latents, seed| {
            let config = crate::TrainConfig {
                sample_latents,
                ..crate::TrainConfig::default()
            };
            let mut latents = Vec::new();
            push_latents(&mut latents, &picture, seed, &config.validate().unwrap());
            latents
        };
        assert_eq!(latents(false, 0), [1.0, -2.0]);
        assert_eq!(latents(false, 1), [1.0, -2.0]);
        assert_ne!(latents(true, 0), [1.0, -2.0]);
        assert_ne!(latents(true, 0), latents(true, 1));
    }
}
