//! Resampling without rounding in between.

use image::RgbImage;

use crate::Filter;
use crate::window::{PRECISION, Window, windows};

/// Bytes of a pixel.
const CHANNELS: usize = 3;

/// Resizes to `width` by `height` in floating-point numbers, as torch's `interpolate` with antialiasing and torchvision's `resize` of a
/// tensor do it: three values of 0 to 255 a pixel, row by row, neither rounded nor cut off where a filter swings beyond.
#[must_use]
pub fn resize_exact(
    image: &RgbImage,
    width: u32,
    height: u32,
    filter: Filter,
) -> Vec<[f32; CHANNELS]> {
    let columns = windows(filter, image.width(), width, 0..width);
    let rows = windows(filter, image.height(), height, 0..height);
    let (pixels, _) = image.as_raw().as_chunks::<CHANNELS>();
    let narrow: Vec<Vec<[f32; CHANNELS]>> = pixels
        .chunks((image.width() as usize).max(1))
        .map(|line| {
            let line: Vec<_> = line.iter().map(|pixel| pixel.map(f32::from)).collect();
            let sums = columns.iter().map(|window| sum(window, line.iter()));
            sums.collect()
        })
        .collect();
    let mut made = Vec::with_capacity(columns.len() * rows.len());
    for window in &rows {
        for column in 0..columns.len() {
            made.push(sum(
                window,
                narrow.iter().filter_map(|line| line.get(column)),
            ));
        }
    }
    made
}

/// The weighted sum of what a window looks at.
fn sum<'a>(window: &Window, pixels: impl Iterator<Item = &'a [f32; CHANNELS]>) -> [f32; CHANNELS] {
    const ONE: f32 = (1 << PRECISION) as f32;
    let mut sums = [0.0; CHANNELS];
    for (pixel, &weight) in pixels.skip(window.start).zip(&window.weights) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += value * (weight as f32 / ONE);
        }
    }
    sums
}
