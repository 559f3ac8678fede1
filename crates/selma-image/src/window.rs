//! Which pixels of a row make up one of the new row, and how much of each.

use std::ops::Range;

use crate::Filter;

/// Bits behind the point of a weight. A sum of bytes by weights needs 8 more, and 2 for weights below 0 and above 1.
pub(crate) const PRECISION: u32 = 32 - 8 - 2;

/// What one pixel is the weighted sum of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: usize,
    /// In parts of 2^[`PRECISION`]; their sum is 1, but for rounding.
    pub(crate) weights: Vec<i32>,
}

impl Window {
    pub(crate) fn end(&self) -> usize {
        self.start + self.weights.len()
    }
}

/// The windows of the pixels `part` of a row of `to` pixels that is made from one of `from`.
pub(crate) fn windows(filter: Filter, from: u32, to: u32, part: Range<u32>) -> Vec<Window> {
    let part = part.start.min(to)..part.end.min(to);
    if from == to {
        let same = |pixel| Window {
            start: pixel as usize,
            weights: vec![1 << PRECISION],
        };
        return part.map(same).collect();
    }
    // As in Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` (libImaging/Resample.c).
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let reach = filter.support() * stretch;
    let shrink = 1.0 / stretch;
    part.map(|pixel| {
        let centre = (f64::from(pixel) + 0.5) * scale;
        let start = (centre - reach + 0.5).max(0.0) as u32;
        let end = ((centre + reach + 0.5) as u32).min(from);
        let weights: Vec<f64> = (start..end)
            .map(|at| filter.weight((f64::from(at) - centre + 0.5) * shrink))
            .collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.iter().map(|weight| fixed(weight / sum)).collect();
        Window {
            start: start as usize,
            weights,
        }
    })
    .collect()
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    // The half is added before the rest is cut off, which is not the same as rounding in the last bit.
    if weight < 0.0 {
        (scaled - 0.5) as i32
    } else {
        (scaled + 0.5) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];

    #[test]
    fn halving_with_a_triangle_takes_an_eighth_and_three_eighths() {
        let halves = windows(Filter::Bilinear, 8, 4, 1..2);
        let one = 1 << PRECISION;
        let expected = [1, 3, 3, 1].map(|eighths| eighths * (one / 8)).to_vec();
        assert_eq!(
            halves,
            [Window {
                start: 1,
                weights: expected
            }]
        );
    }

    #[test]
    fn sums_of_bytes_fit_32_bits() {
        for filter in FILTERS {
            for (from, to) in (1..40).flat_map(|from| (1..40).map(move |to| (from, to))) {
                for window in windows(filter, from, to, 0..to) {
                    assert!(!window.weights.is_empty() && window.end() <= from as usize);
                    let most: i64 = window.weights.iter().map(|w| i64::from(w.abs())).sum();
                    let half = 1 << (PRECISION - 1);
                    assert!(most * 255 + half <= i64::from(i32::MAX), "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn a_part_has_the_windows_of_the_whole() {
        for filter in FILTERS {
            let whole = windows(filter, 30, 17, 0..17);
            assert_eq!(windows(filter, 30, 17, 4..9), whole[4..9]);
            assert_eq!(windows(filter, 30, 17, 15..99), whole[15..]);
        }
    }
}
