//! Pictures as data URIs.

use std::{borrow::Cow, io::Cursor};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ImageFormat, ImageResult, RgbImage, codecs::jpeg::JpegEncoder};
use selma_image::{Filter, resize};
use serde::Serialize;

/// Pictures up to this edge are stored without loss, and shown pixel by pixel.
const SMALL: u32 = 128;
/// Of JPEG, 1 to 100.
const QUALITY: u8 = 90;

/// A picture for an `<img>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Picture {
    /// `data:` URI.
    pub(super) uri: String,
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// Whether it is to be enlarged pixel by pixel.
    pub(super) small: bool,
}

impl Picture {
    /// A picture, made smaller if its longer edge is over `edge`. Its pixels are encoded anew, so that the page holds no
    /// text from the file that could tell its model.
    pub(super) fn new(image: &RgbImage, edge: u32) -> ImageResult<Self> {
        let longer = image.width().max(image.height());
        let image = if longer > edge {
            let scale = f64::from(edge) / f64::from(longer);
            let [width, height] = [image.width(), image.height()]
                .map(|side| (f64::from(side) * scale).round().max(1.0) as u32);
            Cow::Owned(resize(image, width, height, Filter::Lanczos))
        } else {
            Cow::Borrowed(image)
        };
        let small = image.width().max(image.height()) <= SMALL;
        let mut bytes = Cursor::new(Vec::new());
        let mime = if small {
            image.write_to(&mut bytes, ImageFormat::Png)?;
            "image/png"
        } else {
            JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(image.as_ref())?;
            "image/jpeg"
        };
        Ok(Self {
            uri: format!("data:{mime};base64,{}", STANDARD.encode(bytes.into_inner())),
            width: image.width(),
            height: image.height(),
            small,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(picture: &Picture) -> RgbImage {
        let (_, base64) = picture.uri.split_once("base64,").unwrap();
        let bytes = STANDARD.decode(base64).unwrap();
        image::load_from_memory(&bytes).unwrap().into_rgb8()
    }

    #[test]
    fn small_pictures_keep_every_pixel() {
        let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let picture = Picture::new(&image, 512).unwrap();
        assert!(picture.small && picture.uri.starts_with("data:image/png;base64,"));
        assert_eq!(decoded(&picture), image);
    }

    #[test]
    fn large_pictures_keep_their_shape() {
        let image = RgbImage::from_fn(600, 300, |x, _| image::Rgb([(x / 3) as u8; 3]));
        let picture = Picture::new(&image, 200).unwrap();
        assert_eq!(
            (picture.width, picture.height, picture.small),
            (200, 100, false)
        );
        let decoded = decoded(&picture);
        assert_eq!(decoded.dimensions(), (200, 100));
        for x in 2..198 {
            assert!(decoded.get_pixel(x, 50)[0].abs_diff(x as u8) < 4, "{x}");
        }
        // Never made larger.
        assert_eq!(Picture::new(&image, 1000).unwrap().width, 600);
    }
}
