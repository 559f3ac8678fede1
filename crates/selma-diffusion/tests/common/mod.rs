//! The tiny pipelines, and how far numbers are apart.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

pub mod files;
pub mod torch;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use selma_diffusion::weights::Weights;
use selma_diffusion::{DiffusionError, Generated, StableDiffusion, TextToImage};

/// The device that the environment variable `SELMA_TEST_DEVICE` names, else the CPU.
pub fn device() -> Device {
    let name = std::env::var("SELMA_TEST_DEVICE");
    selma_diffusion::device(name.as_deref().unwrap_or("flex")).unwrap()
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The tiny pipelines, and the folders that the environment variable `SELMA_PARITY_DIR` names, separated by colons.
pub fn folders() -> Vec<PathBuf> {
    let mut folders = ["tiny-sd", "tiny-sd-v", "tiny-sdxl"].map(fixture).to_vec();
    if let Ok(extra) = std::env::var("SELMA_PARITY_DIR") {
        folders.extend(extra.split(':').map(PathBuf::from));
    }
    folders
}

/// Each of these pipelines that has this file in its folder `parity`, with the file. The tiny ones have it.
pub fn parity(file: &str) -> Vec<(StableDiffusion, Weights)> {
    let with_file = |folder: &PathBuf| {
        let path = folder.join("parity").join(file);
        if !folder.starts_with(fixture("")) && !path.is_file() {
            return None;
        }
        let pipeline = StableDiffusion::load(folder, &device()).unwrap();
        Some((pipeline, Weights::open(path).unwrap()))
    };
    folders().iter().filter_map(with_file).collect()
}

pub fn tiny() -> StableDiffusion {
    StableDiffusion::load(fixture("tiny-sd"), &device()).unwrap()
}

pub fn draw(
    pipeline: &StableDiffusion,
    request: &TextToImage,
) -> Result<Generated, DiffusionError> {
    pipeline.generate(request, &mut |_| ControlFlow::Continue(()))
}

/// The largest difference, relative to the largest expected value.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected
        .iter()
        .fold(0f32, |max, value| max.max(value.abs()));
    let error = found
        .iter()
        .zip(expected)
        .fold(0f32, |max, (found, expected)| {
            max.max((found - expected).abs())
        });
    error / scale
}
