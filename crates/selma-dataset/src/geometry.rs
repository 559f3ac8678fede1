//! Which part of a picture is shown, at which size, and whether it is mirrored.

use std::num::NonZeroU64;

use image::RgbImage;
use image::imageops::flip_horizontal_in_place;
use image::math::Rect;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_image::{Filter, resize_crop};
use selma_seed::derive_seed;
use serde::{Deserialize, Serialize};

use crate::{Buckets, BucketsConfig, DatasetError, Size};

/// Where a part is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// Anywhere, each place alike: diffusers' default.
    #[default]
    Random,
    /// In the middle: diffusers' `--center_crop`.
    Center,
}

/// How pictures are made ready for training. The defaults leave them as they are.
///
/// SELMA's script has `resolution` 512 (SD) or 1024 (SDXL), `flip`, random crops and the bilinear filter. diffusers' scripts have the Lanczos filter nowadays
/// (`--image_interpolation_mode`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeometryConfig {
    /// Pixels of the short side, and of both sides of the square that is cut out; with `buckets`, the side of a square of their area. Nothing is resized or cut
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<u32>,
    /// Where the square or bucket is cut out.
    pub crop: Crop,
    /// Whether half of the views are mirrored. Captions that [speak of sides](crate::speaks_of_sides) are then wrong for these.
    pub flip: bool,
    /// Sizes of several shapes instead of a square.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<BucketsConfig>,
    /// What resizes.
    pub filter: Filter,
}

impl Default for GeometryConfig {
    fn default() -> Self {
        Self {
            resolution: None,
            crop: Crop::default(),
            flip: false,
            buckets: None,
            filter: Filter::Bilinear,
        }
    }
}

impl GeometryConfig {
    /// Checks the settings and makes the buckets.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Setting`] for the first that cannot be used.
    pub fn validate(&self) -> Result<Geometry, DatasetError> {
        let wrong = |expected: &str, found: String| DatasetError::Setting {
            field: "resolution".to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let fit = match (self.resolution, &self.buckets) {
            (None, None) => Fit::Whole,
            (None, Some(_)) => {
                return Err(wrong(
                    "the side of a square of the buckets' area",
                    "none".to_owned(),
                ));
            }
            (Some(0), _) => return Err(wrong("at least 1", "0".to_owned())),
            (Some(side), None) => Fit::Square(side),
            (Some(side), Some(buckets)) => Fit::Buckets(buckets.buckets(side)?),
        };
        Ok(Geometry {
            fit,
            crop: self.crop,
            flip: self.flip,
            filter: self.filter,
        })
    }
}

/// A [`GeometryConfig`] that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    fit: Fit,
    crop: Crop,
    flip: bool,
    filter: Filter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fit {
    Whole,
    Square(u32),
    Buckets(Buckets),
}

impl Geometry {
    /// The size in which a picture is shown: the same in all of its views.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Picture`] if the picture has no pixels, or is too narrow for a bucket.
    pub fn size(&self, original: Size) -> Result<Size, DatasetError> {
        self.fit(original).map(|(_, size)| size)
    }

    /// How many views of a picture there are if it is cut out in `crops` places: one for each, or one where nothing is left to choose, and each twice if views
    /// are mirrored. So many are to be encoded where encoded pictures are kept.
    ///
    /// # Errors
    ///
    /// As [`size`](Self::size).
    pub fn views(&self, original: Size, crops: NonZeroU64) -> Result<NonZeroU64, DatasetError> {
        let (resized, size) = self.fit(original)?;
        let crops = if self.crop == Crop::Center || resized == size {
            NonZeroU64::MIN
        } else {
            crops
        };
        let sides = if self.flip { 2 } else { 1 };
        Ok(crops.saturating_mul(NonZeroU64::MIN.saturating_add(sides - 1)))
    }

    /// View number `view` of picture `sample` of a data set. It depends on the seed and these two numbers alone. Of a geometry that mirrors, views 2n and 2n + 1
    /// differ in that.
    ///
    /// Sizes and places are those of torchvision's `Resize`, `CenterCrop` and `RandomCrop`, in the order of diffusers' train_text_to_image_lora_sdxl.py, which mirrors
    /// before it cuts; buckets are those of kohya's scripts. The draws are our own.
    ///
    /// # Errors
    ///
    /// As [`size`](Self::size).
    pub fn view(
        &self,
        original: Size,
        seed: u64,
        sample: usize,
        view: u64,
    ) -> Result<View, DatasetError> {
        let (resized, size) = self.fit(original)?;
        let (crop, flipped) = if self.flip {
            (view / 2, view % 2 == 1)
        } else {
            (view, false)
        };
        let spare = [resized.height - size.height, resized.width - size.width];
        let top_left = match self.crop {
            Crop::Center => spare.map(half_to_even),
            Crop::Random => {
                let seed = derive_seed(seed, "crop", &[sample as u64, crop]);
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                spare.map(|spare| rng.random_range(0..=spare))
            }
        };
        Ok(View {
            original,
            resized,
            filter: self.filter,
            flipped,
            top_left,
            size,
        })
    }

    /// The size to which a picture is scaled, and that of the part.
    fn fit(&self, original: Size) -> Result<(Size, Size), DatasetError> {
        let wrong = |expected| DatasetError::Picture {
            expected,
            found: original,
        };
        if original.width == 0 || original.height == 0 {
            return Err(wrong("at least one pixel".to_owned()));
        }
        match &self.fit {
            Fit::Whole => Ok((original, original)),
            Fit::Square(side) => Ok((short_side(original, *side), Size::square(*side))),
            Fit::Buckets(buckets) => buckets.fit(original).ok_or_else(|| {
                wrong(format!(
                    "sides of at least {} when scaled to the buckets' area",
                    buckets.step()
                ))
            }),
        }
    }
}

/// As torchvision's `Resize(side)`: the long side is rounded down.
fn short_side(picture: Size, side: u32) -> Size {
    let (short, long) = (
        picture.width.min(picture.height),
        picture.width.max(picture.height),
    );
    let long = u64::from(side) * u64::from(long) / u64::from(short);
    let long = u32::try_from(long).unwrap_or(u32::MAX);
    if picture.width <= picture.height {
        Size {
            width: side,
            height: long,
        }
    } else {
        Size {
            width: long,
            height: side,
        }
    }
}

/// Python's `round(x / 2)`.
fn half_to_even(x: u32) -> u32 {
    let half = x / 2;
    half + (x % 2) * (half % 2)
}

/// What is shown of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// Size of the picture.
    pub original: Size,
    /// To which it is scaled.
    pub resized: Size,
    /// By this filter.
    pub filter: Filter,
    /// Whether it is then mirrored, left to right.
    pub flipped: bool,
    /// Rows above and columns left of the part that is then cut out.
    pub top_left: [u32; 2],
    /// Size of the part.
    pub size: Size,
}

impl View {
    /// What SDXL is told: height and width of the picture, rows above and columns left of the part, its height and width.
    #[must_use]
    pub fn time_ids(&self) -> [u32; 6] {
        let [top, left] = self.top_left;
        [
            self.original.height,
            self.original.width,
            top,
            left,
            self.size.height,
            self.size.width,
        ]
    }

    /// The view of a picture. Only the part is computed, though its pixels are those of the part of the whole.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Picture`] if the picture is not of the size that the view is for.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage, DatasetError> {
        if Size::of(image) != self.original {
            return Err(DatasetError::Picture {
                expected: format!("{} pixels, as the view is for", self.original),
                found: Size::of(image),
            });
        }
        let [top, left] = self.top_left;
        let mirrored = || self.resized.width.saturating_sub(left + self.size.width);
        let part = Rect {
            x: if self.flipped { mirrored() } else { left },
            y: top,
            width: self.size.width,
            height: self.size.height,
        };
        let (width, height) = (self.resized.width, self.resized.height);
        let mut shown = resize_crop(image, width, height, part, self.filter);
        if self.flipped {
            flip_horizontal_in_place(&mut shown);
        }
        Ok(shown)
    }
}

/// The view that is shown at a position, counted in samples since the start of the training: one of `views`, or any where views are not kept.
#[must_use]
pub fn draw_view(seed: u64, position: u64, views: Option<NonZeroU64>) -> u64 {
    let drawn = derive_seed(seed, "view", &[position]);
    match views {
        Some(views) => ChaCha8Rng::seed_from_u64(drawn).random_range(0..views.get()),
        None => drawn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(change: impl FnOnce(&mut GeometryConfig)) -> Geometry {
        let mut config = GeometryConfig {
            resolution: Some(8),
            ..GeometryConfig::default()
        };
        change(&mut config);
        config.validate().unwrap()
    }

    const WIDE: Size = Size {
        width: 40,
        height: 10,
    };

    #[test]
    fn halves_are_rounded_as_python_rounds_them() {
        let halves = [0, 1, 2, 3, 4, 5, 6, 7].map(half_to_even);
        assert_eq!(halves, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn random_crops_reach_every_place_and_depend_on_nothing_else() {
        let geometry = geometry(|_| ());
        let lefts = |seed, sample| -> Vec<u32> {
            let view = |view| geometry.view(WIDE, seed, sample, view).unwrap();
            (0..300).map(|number| view(number).top_left[1]).collect()
        };
        let mut seen = lefts(1, 0);
        assert_eq!(seen, lefts(1, 0));
        assert_ne!(seen, lefts(2, 0));
        assert_ne!(seen, lefts(1, 1));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..=32 - 8).collect::<Vec<_>>());
    }

    #[test]
    fn mirrored_views_show_the_mirrored_picture() {
        let image = RgbImage::from_fn(40, 10, |x, y| image::Rgb([x as u8 * 6, y as u8 * 20, 7]));
        let geometry = geometry(|config| config.flip = true);
        let mut mirror = image.clone();
        flip_horizontal_in_place(&mut mirror);
        for number in 0..6 {
            let view = geometry.view(WIDE, 5, 3, number).unwrap();
            assert_eq!(view.flipped, number % 2 == 1);
            assert_eq!(
                view.top_left,
                geometry.view(WIDE, 5, 3, number ^ 1).unwrap().top_left
            );
            // The coordinates are those in the picture that is cut.
            let plain = View {
                flipped: false,
                ..view
            };
            let cut = plain.apply(if view.flipped { &mirror } else { &image });
            assert_eq!(view.apply(&image).unwrap(), cut.unwrap());
        }
    }

    #[test]
    fn views_are_as_many_as_there_are_choices() {
        let crops = NonZeroU64::new(8).unwrap();
        let count = |change: fn(&mut GeometryConfig), size| {
            geometry(change).views(size, crops).unwrap().get()
        };
        assert_eq!(count(|_| (), WIDE), 8);
        assert_eq!(count(|_| (), Size::square(99)), 1);
        assert_eq!(count(|config| config.flip = true, WIDE), 16);
        assert_eq!(count(|config| config.crop = Crop::Center, WIDE), 1);
        assert_eq!(count(|config| config.resolution = None, WIDE), 1);
    }

    #[test]
    fn views_are_drawn_from_those_there_are() {
        let drawn = |views| -> Vec<u64> { (0..99).map(|at| draw_view(3, at, views)).collect() };
        let mut few = drawn(NonZeroU64::new(4));
        assert_eq!(few, drawn(NonZeroU64::new(4)));
        few.sort_unstable();
        few.dedup();
        assert_eq!(few, [0, 1, 2, 3]);
        let mirrored = drawn(None).iter().filter(|view| *view % 2 == 1).count();
        assert!((30..70).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn nothing_is_changed_by_default() {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let geometry = GeometryConfig::default().validate().unwrap();
        let view = geometry.view(Size::of(&image), 1, 2, 3).unwrap();
        assert_eq!(view.time_ids(), [3, 5, 0, 0, 3, 5]);
        assert_eq!(view.apply(&image).unwrap(), image);
    }

    #[test]
    fn what_cannot_be_shown_is_named() {
        let no_buckets = BucketsConfig {
            no_upscale: true,
            ..BucketsConfig::default()
        };
        let narrow = geometry(|config| {
            config.resolution = Some(512);
            config.buckets = Some(no_buckets);
        });
        let error = |size| narrow.size(size).unwrap_err().to_string();
        let thin = Size {
            width: 900,
            height: 63,
        };
        assert_eq!(
            error(thin),
            "picture of 900x63 pixels: expected sides of at least 64 when scaled to the buckets' area"
        );
        assert!(error(Size::square(0)).contains("at least one pixel"));
        let view = geometry(|_| ()).view(WIDE, 0, 0, 0).unwrap();
        let other = view.apply(&RgbImage::new(10, 40)).unwrap_err().to_string();
        assert!(
            other.contains("10x40") && other.contains("40x10"),
            "{other}"
        );
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let mut config = GeometryConfig {
            buckets: Some(BucketsConfig::default()),
            ..GeometryConfig::default()
        };
        let error = |config: &GeometryConfig| config.validate().unwrap_err().to_string();
        assert_eq!(
            error(&config),
            "`resolution`: expected the side of a square of the buckets' area, found none"
        );
        config.resolution = Some(0);
        assert!(error(&config).contains("at least 1"));
        let unknown = serde_json::from_str::<GeometryConfig>(r#"{"flipped": true}"#);
        assert!(unknown.unwrap_err().to_string().contains("flipped"));
    }
}
