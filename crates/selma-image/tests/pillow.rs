//! Pictures against Pillow's. The fixtures come from `tools/make_geometry_fixtures.py`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use image::math::Rect;
use image::{RgbImage, imageops};
use proptest::prelude::*;
use selma_image::{Filter, resize, resize_crop};

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
