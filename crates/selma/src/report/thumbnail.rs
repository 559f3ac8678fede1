//! Pictures small enough to stand in the page, as data URIs.

use std::io::Cursor;

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{DynamicImage, ImageFormat, codecs::jpeg::JpegEncoder};
use rayon::prelude::*;

/// Bytes of all pictures before base64, which makes 4 of 3: with the text of 300 prompts the page stays below 25 MB.
const BUDGET: usize = 15_000_000;

/// Pictures up to this edge are shown as they are, pixel by pixel.
const SMALL: u32 = 128;

/// Number of pictures from which the size of all is estimated.
const PROBES: usize = 32;

/// How pictures are stored.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Whether a small picture keeps its own PNG file.
    keep_small: bool,
    /// Longest edge in pixels.
    edge: u32,
    /// JPEG quality, 1 to 100.
    quality: u8,
}

/// From the best to the smallest; the last is taken if none fits.
const FORMS: [Form; 7] = [
    form(true, 512, 88),
    form(true, 256, 86),
    form(true, 128, 86),
    form(false, 128, 90),
    form(false, 128, 80),
    form(false, 96, 75),
    form(false, 64, 70),
];

const fn form(keep_small: bool, edge: u32, quality: u8) -> Form {
    Form {
        keep_small,
        edge,
        quality,
    }
}

/// A picture for an `<img>`.
#[derive(Debug)]
pub(super) struct Thumbnail {
    /// `data:` URI.
    pub(super) uri: String,
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// Whether it is to be enlarged pixel by pixel.
    pub(super) small: bool,
}

/// The pictures in the best form in which all of them keep to the budget; `None` for one that cannot be decoded.
pub(super) fn thumbnails(pngs: &[&[u8]]) -> Vec<Option<Thumbnail>> {
    within(pngs, BUDGET)
}

fn within(pngs: &[&[u8]], budget: usize) -> Vec<Option<Thumbnail>> {
    let step = pngs.len().div_ceil(PROBES).max(1);
    let mut smallest = Vec::new();
    for (index, form) in FORMS.into_iter().enumerate() {
        let last = index + 1 == FORMS.len();
        let probes: usize = pngs.iter().step_by(step).map(|png| size(png, form)).sum();
        if !last && probes.saturating_mul(step) > budget.saturating_add(budget / 8) {
            continue;
        }
        smallest = pngs.par_iter().map(|png| encode(png, form)).collect();
        let total: usize = smallest.iter().flatten().map(|p| p.bytes.len()).sum();
        if total <= budget {
            break;
        }
    }
    smallest
        .into_iter()
        .map(|picture| picture.map(Picture::into_thumbnail))
        .collect()
}

fn size(png: &[u8], form: Form) -> usize {
    encode(png, form).map_or(0, |picture| picture.bytes.len())
}

struct Picture {
    bytes: Vec<u8>,
    mime: &'static str,
    width: u32,
    height: u32,
    small: bool,
}

impl Picture {
    fn into_thumbnail(self) -> Thumbnail {
        Thumbnail {
            uri: format!("data:{};base64,{}", self.mime, STANDARD.encode(self.bytes)),
            width: self.width,
            height: self.height,
            small: self.small,
        }
    }
}

fn encode(png: &[u8], form: Form) -> Option<Picture> {
    let image = image::load_from_memory_with_format(png, ImageFormat::Png).ok()?;
    let small = image.width().max(image.height()) <= SMALL;
    if small && form.keep_small {
        return Some(Picture {
            bytes: png.to_vec(),
            mime: "image/png",
            width: image.width(),
            height: image.height(),
            small,
        });
    }
    let image = if image.width().max(image.height()) > form.edge {
        image.thumbnail(form.edge, form.edge)
    } else {
        image
    };
    Some(Picture {
        bytes: jpeg(&image, form.quality)?,
        mime: "image/jpeg",
        width: image.width(),
        height: image.height(),
        small,
    })
}

fn jpeg(image: &DynamicImage, quality: u8) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode_image(&image.to_rgb8())
        .ok()?;
    Some(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn noise(edge: u32, seed: u32) -> Vec<u8> {
        let image = RgbImage::from_fn(edge, edge, |x, y| {
            let hash = (x * 7919 + y * 104_729 + seed * 31).wrapping_mul(2_654_435_761);
            let [r, g, b, _] = hash.to_le_bytes();
            Rgb([r, g, b])
        });
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_small_picture_keeps_its_bytes() {
        let png = noise(64, 0);
        let thumbnails = thumbnails(&[&png]);
        let thumbnail = thumbnails[0].as_ref().unwrap();
        let data = thumbnail
            .uri
            .strip_prefix("data:image/png;base64,")
            .unwrap();
        assert_eq!(STANDARD.decode(data).unwrap(), png);
        assert_eq!((thumbnail.width, thumbnail.small), (64, true));
    }

    #[test]
    fn a_large_picture_shrinks_in_proportion() {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbImage::from_pixel(1024, 512, Rgb([200, 30, 30]));
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let thumbnails = thumbnails(&[bytes.get_ref()]);
        let thumbnail = thumbnails[0].as_ref().unwrap();
        assert_eq!((thumbnail.width, thumbnail.height), (512, 256));
        assert!(!thumbnail.small);
    }

    #[test]
    fn many_pictures_keep_to_the_budget() {
        let pngs: Vec<Vec<u8>> = (0..50).map(|seed| noise(64, seed)).collect();
        let pngs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
        let bytes = |budget: usize| -> usize {
            let thumbnails = within(&pngs, budget);
            thumbnails.iter().flatten().map(|t| t.uri.len()).sum()
        };
        let (all, most) = (bytes(usize::MAX), bytes(450_000));
        assert!(most < all, "{most} {all}");
        assert!(most * 3 / 4 <= 450_000, "{most}");
    }

    #[test]
    fn what_is_not_a_png_is_none() {
        assert!(
            thumbnails(&[b"\x89PNG\r\n\x1a\n torn", b""])
                .iter()
                .all(Option::is_none)
        );
        assert!(thumbnails(&[]).is_empty());
    }
}
