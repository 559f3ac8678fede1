//! Aspect buckets: sizes of about the same area, so that pictures of any shape are trained on nearly whole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{DatasetError, Size};

/// How buckets are made: names and defaults of kohya's sd-scripts (`BucketManager`, library/train_util.py).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketsConfig {
    /// Shortest side of a bucket, in pixels. Not looked at with `no_upscale`.
    pub min_size: u32,
    /// Longest side of a bucket, in pixels. Not looked at with `no_upscale`.
    pub max_size: u32,
    /// Sides are multiples of this, which itself is a multiple of the VAE's factor (8).
    pub step: u32,
    /// Whether small pictures keep their size, instead of being enlarged to that of a bucket. The buckets are then the sizes of the pictures, cut down to multiples
    /// of `step`.
    pub no_upscale: bool,
}

impl Default for BucketsConfig {
    fn default() -> Self {
        Self {
            min_size: 256,
            max_size: 1024,
            step: 64,
            no_upscale: false,
        }
    }
}

impl BucketsConfig {
    /// Makes the buckets whose area is at most `resolution` times `resolution`.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Setting`] for the first setting that cannot be used. kohya's scripts round `min_size` and `max_size` to multiples of `step`; here they
    /// have to be.
    pub fn buckets(&self, resolution: u32) -> Result<Buckets, DatasetError> {
        let wrong = |field: &str, expected: String, found: u32| DatasetError::Setting {
            field: field.to_owned(),
            expected,
            found: found.to_string(),
        };
        if self.step == 0 {
            let expected = "at least 1".to_owned();
            return Err(wrong("buckets.step", expected, self.step));
        }
        if resolution < self.step {
            let expected = format!("at least the step of the buckets, {}", self.step);
            return Err(wrong("resolution", expected, resolution));
        }
        if !self.no_upscale {
            for (field, side) in [
                ("buckets.min_size", self.min_size),
                ("buckets.max_size", self.max_size),
            ] {
                if side == 0 || !side.is_multiple_of(self.step) {
                    let expected = format!("a multiple of the step, {}", self.step);
                    return Err(wrong(field, expected, side));
                }
            }
            if !(self.min_size..=self.max_size).contains(&resolution) {
                let expected = format!(
                    "from the buckets' min_size, {}, to their max_size, {}",
                    self.min_size, self.max_size
                );
                return Err(wrong("resolution", expected, resolution));
            }
        }
        Ok(Buckets {
            sizes: if self.no_upscale {
                Vec::new()
            } else {
                self.sizes(resolution)
            },
            area: u64::from(resolution).pow(2),
            step: self.step,
        })
    }

    /// As `make_bucket_resolutions`: for each width the largest height that the area leaves, both ways round, and a square.
    fn sizes(&self, resolution: u32) -> Vec<Size> {
        let area = u64::from(resolution).pow(2);
        let mut sizes = BTreeSet::from([Size::square(resolution / self.step * self.step)]);
        for width in (self.min_size..=self.max_size).step_by(self.step as usize) {
            let left = area / u64::from(width) / u64::from(self.step) * u64::from(self.step);
            let height = left.min(u64::from(self.max_size)) as u32;
            if height < self.min_size {
                break;
            }
            sizes.insert(Size { width, height });
            sizes.insert(Size {
                width: height,
                height: width,
            });
        }
        sizes.into_iter().collect()
    }
}

/// The sizes in which pictures are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    /// Ascending; none where the pictures make the buckets.
    sizes: Vec<Size>,
    area: u64,
    step: u32,
}

impl Buckets {
    /// All buckets, ascending; none with `no_upscale`, where each picture makes its own.
    #[must_use]
    pub fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// What the sides of buckets are multiples of.
    pub(crate) fn step(&self) -> u32 {
        self.step
    }

    /// The size to which a picture is scaled, and the bucket, which is cut out of that: as `select_bucket`. The bucket is the one whose width by height is nearest
    /// to the picture's, the narrower of two.
    ///
    /// None for a picture without pixels and, with `no_upscale`, one in which no side of a step is left.
    #[must_use]
    pub fn fit(&self, picture: Size) -> Option<(Size, Size)> {
        if picture.width == 0 || picture.height == 0 {
            return None;
        }
        let aspect = aspect(picture);
        if self.sizes.is_empty() {
            return self.fit_without_upscaling(picture, aspect);
        }
        let far = |size: &Size| (self::aspect(*size) - aspect).abs();
        let nearest = self.sizes.iter().copied();
        let nearest = nearest.min_by(|a, b| far(a).total_cmp(&far(b)))?;
        let bucket = if self.sizes.binary_search(&picture).is_ok() {
            picture
        } else {
            nearest
        };
        let [width, height] = [picture.width, picture.height].map(f64::from);
        let scale = if aspect > self::aspect(bucket) {
            f64::from(bucket.height) / height
        } else {
            f64::from(bucket.width) / width
        };
        let resized = Size {
            width: half_up(width * scale),
            height: half_up(height * scale),
        };
        Some((resized, bucket))
    }

    /// Pictures over the area are scaled down so that one side is a multiple of the step: the one that changes the picture's shape less when the other is cut.
    fn fit_without_upscaling(&self, picture: Size, aspect: f64) -> Option<(Size, Size)> {
        let cut = |side: u32| side - side % self.step;
        let mut resized = picture;
        if u64::from(picture.width) * u64::from(picture.height) > self.area {
            let width = (self.area as f64 * aspect).sqrt();
            let height = self.area as f64 / width;
            let by_width = cut(half_up(width));
            let by_height = cut(half_up(height));
            if by_width == 0 || by_height == 0 {
                return None;
            }
            let width_first =
                f64::from(by_width) / f64::from(cut(half_up(f64::from(by_width) / aspect)));
            let height_first =
                f64::from(cut(half_up(f64::from(by_height) * aspect))) / f64::from(by_height);
            resized = if (width_first - aspect).abs() < (height_first - aspect).abs() {
                Size {
                    width: by_width,
                    height: half_up(f64::from(by_width) / aspect),
                }
            } else {
                Size {
                    width: half_up(f64::from(by_height) * aspect),
                    height: by_height,
                }
            };
        }
        let bucket = Size {
            width: cut(resized.width),
            height: cut(resized.height),
        };
        (bucket.width > 0 && bucket.height > 0).then_some((resized, bucket))
    }
}

fn aspect(size: Size) -> f64 {
    f64::from(size.width) / f64::from(size.height)
}

/// Python's `int(x + 0.5)` of what is not negative.
fn half_up(x: f64) -> u32 {
    (x + 0.5) as u32
}
