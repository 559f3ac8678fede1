//! Sizes, places and buckets against torchvision's and kohya's. The fixtures come from `tools/make_geometry_fixtures.py`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use image::RgbImage;
use proptest::prelude::*;
use selma_dataset::{BucketsConfig, Crop, GeometryConfig, Size, View};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    squares: Vec<Square>,
    buckets: Vec<List>,
    fits: Vec<Fit>,
}

#[derive(Deserialize)]
struct Square {
    side: u32,
    picture: (u32, u32),
    resized: (u32, u32),
    top_left: [u32; 2],
}

#[derive(Deserialize)]
struct List {
    resolution: u32,
    min_size: u32,
    max_size: u32,
    step: u32,
    sizes: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct Fit {
    resolution: u32,
    min_size: u32,
    max_size: u32,
    step: u32,
    no_upscale: bool,
    picture: (u32, u32),
    resized: (u32, u32),
    bucket: (u32, u32),
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixtures() -> Fixtures {
    let json = std::fs::read_to_string(folder().join("geometry.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn picture(name: &str) -> RgbImage {
    image::open(folder().join(name)).unwrap().into_rgb8()
}

fn size((width, height): (u32, u32)) -> Size {
    Size { width, height }
}

fn centre(side: u32) -> GeometryConfig {
    GeometryConfig {
        resolution: Some(side),
        crop: Crop::Center,
        ..GeometryConfig::default()
    }
}

#[test]
fn squares_are_those_of_torchvision() {
    let squares = fixtures().squares;
    assert!(squares.len() > 20);
    for case in squares {
        let geometry = centre(case.side).validate().unwrap();
        let view = geometry.view(size(case.picture), 0, 0, 0).unwrap();
        assert_eq!(view.resized, size(case.resized), "{:?}", case.picture);
        assert_eq!(view.top_left, case.top_left, "{:?}", case.picture);
        assert_eq!(view.size, Size::square(case.side));
    }
}

#[test]
fn views_are_those_of_the_script_of_diffusers() {
    let original = picture("picture.png");
    let mut config = centre(15);
    config.flip = true;
    let geometry = config.validate().unwrap();
    for (number, name) in ["view-plain.png", "view-mirrored.png"].iter().enumerate() {
        let view = geometry.view(Size::of(&original), 9, 4, number as u64);
        let view = view.unwrap();
        assert!(view.apply(&original).unwrap() == picture(name), "{name}");
        assert_eq!(view.time_ids(), [22, 36, 0, 4, 15, 15]);
    }
}

#[test]
fn buckets_are_those_of_kohya() {
    for case in fixtures().buckets {
        let config = BucketsConfig {
            min_size: case.min_size,
            max_size: case.max_size,
            step: case.step,
            no_upscale: false,
        };
        let buckets = config.buckets(case.resolution).unwrap();
        let wanted: Vec<Size> = case.sizes.into_iter().map(size).collect();
        assert_eq!(buckets.sizes(), wanted);
    }
}

#[test]
fn pictures_go_to_the_buckets_of_kohya() {
    let fits = fixtures().fits;
    assert!(fits.iter().filter(|fit| fit.no_upscale).count() > 80);
    for case in fits {
        let config = BucketsConfig {
            min_size: case.min_size,
            max_size: case.max_size,
            step: case.step,
            no_upscale: case.no_upscale,
        };
        let buckets = config.buckets(case.resolution).unwrap();
        let (resized, bucket) = buckets.fit(size(case.picture)).unwrap();
        let found = (resized, bucket);
        let wanted = (size(case.resized), size(case.bucket));
        assert_eq!(found, wanted, "{config:?} {:?}", case.picture);
    }
}

#[test]
fn bucket_settings_that_cannot_be_used_are_named() {
    type Spoil = fn(&mut BucketsConfig);
    let cases: [(&str, Spoil); 6] = [
        ("buckets.step", |config| config.step = 0),
        ("resolution", |config| config.step = 1024),
        ("buckets.min_size", |config| config.min_size = 100),
        ("buckets.min_size", |config| config.min_size = 0),
        ("buckets.max_size", |config| config.max_size = 1000),
        ("resolution", |config| config.max_size = 448),
    ];
    for (field, spoil) in cases {
        let mut config = BucketsConfig::default();
        spoil(&mut config);
        let error = config.buckets(512).unwrap_err().to_string();
        let begin = format!("`{field}`: expected ");
        assert!(error.starts_with(&begin), "{error}");
    }
}

fn whole_is_in(view: &View) -> bool {
    let [top, left] = view.top_left;
    let (resized, size) = (view.resized, view.size);
    top + size.height <= resized.height && left + size.width <= resized.width
}

proptest! {
    /// Any picture, also of the narrowest, is cut out within its bounds or refused.
    #[test]
    fn parts_lie_within_the_picture(
        picture in (0..3000_u32, 0..3000_u32),
        side in 1..1500_u32,
        step in prop::sample::select(vec![None, Some(8_u32), Some(32), Some(64)]),
        no_upscale: bool,
        seed: u64,
        view: u64,
    ) {
        let buckets = step.map(|step| BucketsConfig { min_size: step, max_size: 2048, step, no_upscale });
        let config = GeometryConfig { resolution: Some(side), buckets, flip: true, ..GeometryConfig::default() };
        let Ok(geometry) = config.validate() else {
            prop_assert!(step.is_some_and(|step| side < step));
            return Ok(());
        };
        match geometry.view(size(picture), seed, 1, view) {
            Ok(view) => {
                prop_assert!(whole_is_in(&view), "{view:?}");
                prop_assert_eq!(view.size, geometry.size(size(picture)).unwrap());
                if let Some(step) = step {
                    prop_assert_eq!((view.size.width % step, view.size.height % step), (0, 0));
                }
            }
            Err(error) => {
                let narrow = picture.0 == 0 || picture.1 == 0 || (step.is_some() && no_upscale);
                prop_assert!(narrow, "{error}");
            }
        }
    }
}
