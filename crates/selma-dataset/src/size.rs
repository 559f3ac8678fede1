//! Width and height.

use std::fmt;

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Width and height of a picture, in pixels. Sizes are ordered by width, then height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// Of a picture.
    #[must_use]
    pub fn of(image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self { width, height }
    }

    /// Of a square.
    #[must_use]
    pub fn square(side: u32) -> Self {
        Self {
            width: side,
            height: side,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
