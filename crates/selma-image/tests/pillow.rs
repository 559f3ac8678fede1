//! Pictures against Pillow's. The fixtures come from `tools/make_geometry_fixtures.py`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use image::math::Rect;
use image::{RgbImage, imageops};
use proptest::prelude::*;
use selma_image::{Filter, resize, resize_crop, resize_exact};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn open(path: &Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

/// From the name of a file: `lanczos-18x12.png`.
fn filter(path: &Path) -> Option<Filter> {
    let name = path.file_stem()?.to_str()?;
    let (filter, _) = name.split_once('-')?;
    serde_json::from_value(filter.into()).ok()
}

#[test]
fn pictures_are_resized_as_by_pillow() {
    let picture = open(&fixtures().join("picture.png"));
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let Some(filter) = filter(&path) else {
            continue;
        };
        let wanted = open(&path);
        let found = resize(&picture, wanted.width(), wanted.height(), filter);
        assert!(found == wanted, "{}", path.display());
        seen.push(filter);
    }
    for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
        assert_eq!(seen.iter().filter(|found| **found == filter).count(), 11);
    }
}

#[test]
fn an_edge_swings_beyond_black_and_white_where_nothing_is_cut_off() {
    let edge = RgbImage::from_fn(8, 1, |x, _| image::Rgb([if x < 4 { 0 } else { 255 }; 3]));
    let values = resize_exact(&edge, 32, 1, Filter::Bicubic);
    assert!(values.iter().any(|[red, ..]| *red < -5.0));
    assert!(values.iter().any(|[red, ..]| *red > 260.0));
    let empty = resize_exact(&RgbImage::new(0, 0), 2, 2, Filter::Bicubic);
    assert_eq!(empty, [[0.0; 3]; 4]);
}

#[test]
fn rounded_the_exact_picture_is_that_of_bytes() {
    // Too soft for the filter to swing beyond black and white, where bytes are cut off.
    let soft = RgbImage::from_fn(23, 17, |x, y| {
        image::Rgb([60 + x as u8 * 5, 60 + y as u8 * 6, 128])
    });
    for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
        for (width, height) in [(9, 9), (23, 17), (40, 5), (5, 40)] {
            let bytes = resize(&soft, width, height, filter);
            let exact = resize_exact(&soft, width, height, filter);
            assert_eq!(exact.len(), bytes.pixels().len());
            for (pixel, exact) in bytes.pixels().zip(&exact) {
                for (byte, value) in pixel.0.into_iter().zip(exact) {
                    assert!((f32::from(byte) - value).abs() < 1.1, "{byte} {value}");
                }
            }
        }
    }
}

prop_compose! {
    fn pictures()(width in 1..24_u32, height in 1..24_u32, seed: u32) -> RgbImage {
        let noise = |x: u32, y: u32, channel: u32| (x * 31 + y * 17 + channel * 7).wrapping_mul(seed | 1) >> 11;
        RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| noise(x, y, c) as u8)))
    }
}

proptest! {
    #[test]
    fn a_part_is_the_part_of_the_whole(
        picture in pictures(),
        [width, height] in prop::array::uniform2(1..40_u32),
        [x, y] in prop::array::uniform2(0..40_u32),
        part in prop::array::uniform2(0..40_u32),
        filter in prop::sample::select(vec![Filter::Bilinear, Filter::Bicubic, Filter::Lanczos]),
    ) {
        let whole = resize(&picture, width, height, filter);
        let part = Rect { x, y, width: part[0], height: part[1] };
        let cropped = imageops::crop_imm(&whole, x, y, part.width, part.height).to_image();
        prop_assert_eq!(resize_crop(&picture, width, height, part, filter), cropped);
    }
}
