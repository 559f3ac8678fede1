//! Pairs of a source.

use burn::tensor::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;
use selma_diffusion::image::to_tensor;

use super::PairSource;
use crate::TrainError;

/// Pairs `start..start + count` of a source, made in parallel.
pub(super) fn pairs(
    source: &impl PairSource,
    start: usize,
    count: usize,
) -> Result<(Vec<RgbImage>, Vec<String>), TrainError> {
    let pairs: Vec<_> = (start..start + count)
        .into_par_iter()
        .map(|index| source.pair(index as u64))
        .collect::<Result<_, _>>()?;
    Ok(pairs.into_iter().unzip())
}

/// `[count, 3, height, width]` in -1..1.
pub(super) fn image_tensor(images: &[RgbImage], device: &Device) -> Result<Tensor<4>, TrainError> {
    Ok(to_tensor(images, device)?)
}
