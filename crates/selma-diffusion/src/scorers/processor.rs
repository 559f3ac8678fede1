//! From pictures to the pixels that CLIP takes.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use image::math::Rect;
use rayon::prelude::*;
use selma_image::{Filter, resize, resize_crop, resize_exact};
use serde_json::{Map, Value};

use crate::config::{ConfigError, read_json, require_default};

/// Mean of red, green and blue in CLIP's training data, between 0 and 1; OpenCLIP's published models have the same.
const MEAN: [f32; 3] = [0.481_454_67, 0.457_827_5, 0.408_210_72];
/// Their standard deviations.
const STD: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];

/// How a picture of any shape becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The shorter side is resized and the middle cut out, as transformers' `CLIPImageProcessor` does it: of an odd number of pixels too
    /// many, the greater part goes at the right and the bottom.
    Transformers,
    /// The same as torchvision's `Resize` and `CenterCrop` do it, in OpenAI's own code and in OpenCLIP: half of an odd number is
    /// rounded to an even number.
    Torchvision,
    /// The longer side is resized and the rest filled up with black on both sides, as the package `hpsv2` does it (`ResizeMaxSize` in its
    /// `transform.py`). It resizes floating-point numbers, which are not rounded, nor cut off at black and white; with antialiasing, the
    /// default of torchvision since 0.17.
    Pad,
    /// Both sides are resized, whatever that does to shapes, as transformers' `BlipImageProcessor` does it.
    Stretch,
}

/// Resizes with a bicubic filter and antialiasing, cuts out or fills up, and normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageProcessor {
    /// Height and width of what comes out, in pixels.
    pub size: u32,
    /// How a picture becomes a square.
    pub framing: Framing,
}

impl ImageProcessor {
    /// Normalised pixels of pictures of any sizes: `[pictures, 3, size, size]`.
    #[must_use]
    pub fn prepare(&self, images: &[&RgbImage], device: &Device) -> Tensor<4> {
        let values: Vec<Vec<f32>> = images.par_iter().map(|image| self.pixels(image)).collect();
        let size = self.size as usize;
        let shape = [images.len(), 3, size, size];
        Tensor::from_data(TensorData::new(values.concat(), shape), device)
    }

    /// One picture, channel by channel.
    fn pixels(&self, image: &RgbImage) -> Vec<f32> {
        let square = match self.framing {
            Framing::Transformers => self.cropped(image, |rest| rest / 2),
            Framing::Torchvision => self.cropped(image, |rest| {
                (f64::from(rest) / 2.0).round_ties_even() as u32
            }),
            Framing::Pad => self.padded(image),
            Framing::Stretch => {
                let square = resize(image, self.size, self.size, Filter::Bicubic);
                square
                    .pixels()
                    .map(|pixel| pixel.0.map(f32::from))
                    .collect()
            }
        };
        let mut values = Vec::with_capacity(3 * square.len());
        for (channel, (mean, std)) in MEAN.iter().zip(STD).enumerate() {
            let plane = square.iter().flat_map(|pixel| pixel.get(channel));
            values.extend(plane.map(|value| (value / 255.0 - mean) / std));
        }
        values
    }

    /// The middle of the picture whose shorter side is resized; `start` says how many of the pixels that are too many go before it.
    fn cropped(&self, image: &RgbImage, start: impl Fn(u32) -> u32) -> Vec<[f32; 3]> {
        let size = self.size;
        let (width, height) = image.dimensions();
        let longer = |long: u32, short: u32| {
            let long = u64::from(size) * u64::from(long) / u64::from(short.max(1));
            u32::try_from(long).unwrap_or(u32::MAX).max(size)
        };
        let (width, height) = match width <= height {
            true => (size, longer(height, width)),
            false => (longer(width, height), size),
        };
        let part = Rect {
            x: start(width - size),
            y: start(height - size),
            width: size,
            height: size,
        };
        let square = resize_crop(image, width, height, part, Filter::Bicubic);
        square
            .pixels()
            .map(|pixel| pixel.0.map(f32::from))
            .collect()
    }

    /// The picture whose longer side is resized, in the middle of black.
    fn padded(&self, image: &RgbImage) -> Vec<[f32; 3]> {
        let size = self.size as usize;
        let (width, height) = image.dimensions();
        let scale = f64::from(self.size) / f64::from(width.max(height).max(1));
        let resized = |side: u32| (f64::from(side) * scale).round_ties_even().max(1.0) as u32;
        let (width, height) = (resized(width), resized(height));
        let inner = resize_exact(image, width, height, Filter::Bicubic);
        let (width, height) = (width as usize, height as usize);
        let (left, top) = ((size - width) / 2, (size - height) / 2);
        let mut square = vec![[0.0; 3]; size * size];
        let rows = square.chunks_mut(size.max(1)).skip(top);
        for (row, inner) in rows.zip(inner.chunks(width.max(1))) {
            for (pixel, inner) in row.iter_mut().skip(left).zip(inner) {
                *pixel = *inner;
            }
        }
        square
    }
}

/// Refuses a folder whose `preprocessor_config.json` has pictures prepared in another way: cut out by the shorter side as for CLIP, or stretched.
pub(crate) fn require_processor(
    folder: &Path,
    image_size: usize,
    framing: Framing,
) -> Result<(), ConfigError> {
    let path = folder.join("preprocessor_config.json");
    if !path.is_file() {
        return Ok(());
    }
    let fields: Map<String, Value> = read_json(&path)?;
    let stretched = framing == Framing::Stretch;
    let all = ["do_resize", "do_rescale", "do_normalize"];
    let mut defaults = all.map(|name| (name, Value::from(true))).to_vec();
    defaults.push(("do_center_crop", Value::from(!stretched)));
    defaults.push(("resample", Value::from(3)));
    require_default(&fields, &defaults).map_err(|error| error.in_file(&path))?;
    for (field, expected) in [("image_mean", MEAN), ("image_std", STD)] {
        let Some(found) = fields.get(field) else {
            continue;
        };
        let numbers = found.as_array().into_iter().flatten().map(Value::as_f64);
        let numbers = numbers.map(|number| number.map(|number| number as f32));
        if !numbers.eq(expected.map(Some)) {
            return Err(ConfigError::invalid(field, format!("{expected:?}"), found).in_file(&path));
        }
    }
    let sides: &[_] = match stretched {
        true => &[("size", "height"), ("size", "width")],
        false => &[("size", "shortest_edge"), ("crop_size", "height")],
    };
    for &(field, side) in sides {
        let Some(found) = fields.get(field) else {
            continue;
        };
        let pixels = found.get(side).unwrap_or(found);
        if pixels.as_u64() != Some(image_size as u64) {
            let expected = format!("{image_size}, the image_size of the model");
            return Err(ConfigError::invalid(field, expected, found).in_file(&path));
        }
    }
    Ok(())
}
