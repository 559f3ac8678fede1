//! What weighs the pixels around a point.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A filter, by its name in Pillow's `Image.Resampling` and torchvision's `InterpolationMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle: what torchvision's `Resize` does unless told otherwise.
    Bilinear,
    /// Keys's cubic with a = -0.5: what CLIP's and BLIP's processors do.
    Bicubic,
    /// A windowed sinc of three lobes: what diffusers' pipelines do.
    Lanczos,
}

impl Filter {
    /// Half its width in pixels: of the picture that is made or, where that is smaller, of the one that is read.
    pub(crate) fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight of a pixel `x` such pixels away from the middle.
    pub(crate) fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => bicubic(x.abs()),
            Self::Lanczos => lanczos(x),
        }
    }
}

/// In the order of Pillow's operations, as the last bit depends on it.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        if x == 0.0 {
            1.0
        } else {
            (x * PI).sin() / (x * PI)
        }
    };
    if (-3.0..3.0).contains(&x) {
        sinc(x) * sinc(x / 3.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_one_in_the_middle_and_nothing_at_the_end() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            assert_eq!(filter.weight(0.0), 1.0);
            assert_eq!(filter.weight(filter.support()), 0.0);
            // What is between pixels of one colour has that colour.
            let sum: f64 = (-3..4).map(|at| filter.weight(f64::from(at) + 0.25)).sum();
            assert!((sum - 1.0).abs() < 0.01, "{filter:?}: {sum}");
        }
    }

    #[test]
    fn settings_name_filters_as_torchvision_does() {
        let json = serde_json::to_string(&[Filter::Bilinear, Filter::Bicubic, Filter::Lanczos]);
        assert_eq!(json.unwrap(), r#"["bilinear","bicubic","lanczos"]"#);
    }
}
