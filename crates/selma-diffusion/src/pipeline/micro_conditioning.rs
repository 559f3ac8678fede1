//! Sizes that SDXL is conditioned on.

use serde::{Deserialize, Serialize};

use crate::models::TimeIds;

/// What SDXL is told about the sizes of a picture (arXiv 2307.01952, section 2.2). Heights come first, all in pixels.
///
/// The defaults are those of diffusers' `StableDiffusionXLPipeline`: a picture that was neither scaled nor cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MicroConditioning {
    /// Size before scaling; that of the picture if none is given. A small one gives a blurred picture.
    pub original_size: Option<[usize; 2]>,
    /// Where a crop begins; the top left corner by default. Another gives a picture whose objects are cut off.
    pub crops_coords_top_left: [usize; 2],
    /// Size after cropping; that of the picture if none is given.
    pub target_size: Option<[usize; 2]>,
    /// The same for the negative prompt; it counts only together with `negative_target_size`. Otherwise the positive
    /// sizes stand for all negative ones.
    pub negative_original_size: Option<[usize; 2]>,
    /// The crop for the negative prompt, where its sizes are given.
    pub negative_crops_coords_top_left: [usize; 2],
    /// See `negative_original_size`.
    pub negative_target_size: Option<[usize; 2]>,
}

impl MicroConditioning {
    /// Whether nothing is told but the picture's own size.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The time ids of the prompts of a picture.
    #[must_use]
    pub fn time_ids(&self, height: usize, width: usize) -> TimeIds {
        TimeIds {
            original_size: self.original_size.unwrap_or([height, width]),
            crops_coords_top_left: self.crops_coords_top_left,
            target_size: self.target_size.unwrap_or([height, width]),
        }
    }

    /// The time ids of its negative prompts.
    #[must_use]
    pub fn negative_time_ids(&self, height: usize, width: usize) -> TimeIds {
        match (self.negative_original_size, self.negative_target_size) {
            (Some(original_size), Some(target_size)) => TimeIds {
                original_size,
                crops_coords_top_left: self.negative_crops_coords_top_left,
                target_size,
            },
            _ => self.time_ids(height, width),
        }
    }

    /// The time ids of the negative prompts where a picture is what a run starts from: each size counts by itself, and the crop is that of the prompt
    /// (`StableDiffusionXLImg2ImgPipeline._get_add_time_ids`).
    #[must_use]
    pub fn negative_time_ids_from_image(&self, height: usize, width: usize) -> TimeIds {
        let positive = self.time_ids(height, width);
        TimeIds {
            original_size: self
                .negative_original_size
                .unwrap_or(positive.original_size),
            target_size: self.negative_target_size.unwrap_or(positive.target_size),
            ..positive
        }
    }
}
