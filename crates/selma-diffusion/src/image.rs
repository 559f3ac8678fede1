//! Images between files, pixels and tensors.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

pub use selma_image::{Filter, resize};

use crate::DiffusionError;

/// Reads a picture, upright where its camera held it otherwise, and without its transparency: as diffusers' `load_image`.
///
/// # Errors
///
/// If the file cannot be read, or is no picture in a format of this build (PNG, JPEG and WebP).
pub fn open(path: impl AsRef<Path>) -> Result<RgbImage, DiffusionError> {
    let path = path.as_ref();
    let unreadable = |source| DiffusionError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let no_picture = |source| DiffusionError::NoPicture {
        path: path.to_owned(),
        source,
    };
    let reader = ImageReader::open(path).map_err(unreadable)?;
    let reader = reader.with_guessed_format().map_err(unreadable)?;
    let mut decoder = reader.into_decoder().map_err(no_picture)?;
    let orientation = decoder.orientation().map_err(no_picture)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(no_picture)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Stacks images of one size: `[count, 3, height, width]` in -1..1.
///
/// # Errors
///
/// [`DiffusionError::Request`] if the images are not all of the size of the first.
pub fn to_tensor<'a>(
    images: impl IntoIterator<Item = &'a RgbImage>,
    device: &Device,
) -> Result<Tensor<4>, DiffusionError> {
    let mut images = images.into_iter().peekable();
    let (width, height) = images.peek().map_or((0, 0), |image| image.dimensions());
    let (mut values, mut count) = (Vec::new(), 0);
    for image in images {
        count += 1;
        if image.dimensions() != (width, height) {
            return Err(DiffusionError::Request {
                what: "size of an image",
                expected: format!("{width}x{height} as the first"),
                found: format!("{}x{}", image.width(), image.height()),
            });
        }
        for channel in 0..3 {
            let plane = image.as_raw().iter().skip(channel).step_by(3);
            values.extend(plane.map(|&byte| f32::from(byte) / 127.5 - 1.0));
        }
    }
    let shape = [count, 3, height as usize, width as usize];
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Images of a tensor `[count, 3, height, width]` in -1..1; values outside are clipped, as diffusers does.
///
/// # Errors
///
/// [`DiffusionError::Request`] if the tensor does not have three channels, [`DiffusionError::ReadBack`] if the device
/// fails.
pub fn from_tensor(tensor: Tensor<4>) -> Result<Vec<RgbImage>, DiffusionError> {
    let shape = tensor.dims();
    from_values(&read(tensor)?, shape)
}

/// Images of the values of such a tensor.
pub(crate) fn from_values(
    values: &[f32],
    [_, channels, height, width]: [usize; 4],
) -> Result<Vec<RgbImage>, DiffusionError> {
    let wrong = || DiffusionError::Request {
        what: "channels of an image",
        expected: "3".to_owned(),
        found: channels.to_string(),
    };
    if channels != 3 {
        return Err(wrong());
    }
    let plane = height * width;
    let quantise = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
    values
        .chunks_exact((3 * plane).max(1))
        .map(|image| {
            let (red, rest) = image.split_at(plane);
            let (green, blue) = rest.split_at(plane);
            let pixels = red.iter().zip(green).zip(blue);
            let bytes = pixels.flat_map(|((red, green), blue)| [red, green, blue].map(quantise));
            RgbImage::from_raw(width as u32, height as u32, bytes.collect()).ok_or_else(wrong)
        })
        .collect()
}

/// Values of a tensor in row-major order.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, DiffusionError> {
    let data = tensor
        .try_into_data()
        .map_err(DiffusionError::read_back)?
        .convert::<f32>();
    data.try_to_vec::<f32>()
        .map_err(|error| DiffusionError::ReadBack {
            reason: format!("{error:?}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_survive_the_way_there_and_back() {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 100, 255]));
        let images = vec![image.clone(), image];
        let tensor = to_tensor(&images, &Device::flex()).unwrap();
        assert_eq!(tensor.dims(), [2, 3, 3, 5]);
        assert_eq!(from_tensor(tensor).unwrap(), images);
    }

    #[test]
    fn images_of_two_sizes_are_refused() {
        let images = [RgbImage::new(2, 2), RgbImage::new(2, 3)];
        let error = to_tensor(&images, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("2x3"), "{error}");
    }
}
