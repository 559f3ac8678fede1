//! What a shape looks like after blurring: tables of coverage, made once.
#![allow(
    clippy::indexing_slicing,
    reason = "indices run over square tables built here"
)]

use std::sync::OnceLock;

use crate::Shape;
use crate::shapes::signed_distance;

/// Standard deviations of the Gaussian blurs, in units of the radius: from as rendered (0.04 of a large radius is half
/// a pixel) to two pixels on the smallest object.
pub(super) const BLURS: [f32; 5] = [0.04, 0.1, 0.17, 0.25, 0.33];

/// The tables cover `[-REACH, REACH]` along both axes, in units of the radius.
const REACH: f32 = 2.0;
const POINTS: usize = 101;
const STEP: f32 = 2.0 * REACH / (POINTS as f32 - 1.0);

/// The blurred footprint of one shape of radius 1.
#[derive(Debug)]
pub(super) struct Template {
    cover: Vec<f32>,
}

impl Template {
    /// Coverage at a point, in units of the radius from the shape's centre; 0 outside of the table.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (gx, gy) = ((x + REACH) / STEP, (y + REACH) / STEP);
        let limit = POINTS as f32 - 1.001;
        if !(0.0..limit).contains(&gx) || !(0.0..limit).contains(&gy) {
            return 0.0;
        }
        let (column, row) = (gx as usize, gy as usize);
        let (fx, fy) = (gx - column as f32, gy - row as f32);
        let i = row * POINTS + column;
        let upper = self.cover[i] * (1.0 - fx) + self.cover[i + 1] * fx;
        let lower = self.cover[i + POINTS] * (1.0 - fx) + self.cover[i + POINTS + 1] * fx;
        upper * (1.0 - fy) + lower * fy
    }
}

/// The templates of a shape, one for each of [`BLURS`].
pub(super) fn templates(shape: Shape) -> &'static [Template] {
    static TABLES: [OnceLock<Vec<Template>>; 8] = [const { OnceLock::new() }; 8];
    TABLES[shape as usize].get_or_init(|| {
        let coordinate = |i: usize| i as f32 * STEP - REACH;
        let sharp: Vec<f32> = (0..POINTS * POINTS)
            .map(|i| {
                let distance =
                    signed_distance(shape, coordinate(i % POINTS), coordinate(i / POINTS));
                (0.5 - distance / STEP).clamp(0.0, 1.0)
            })
            .collect();
        BLURS
            .iter()
            .map(|&sigma| Template {
                cover: blurred(&sharp, sigma / STEP),
            })
            .collect()
    })
}

/// A separable Gaussian blur; outside of the table there is nothing.
fn blurred(source: &[f32], sigma: f32) -> Vec<f32> {
    let reach = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-reach..=reach)
        .map(|d| (-(d as f32 / sigma).powi(2) / 2.0).exp())
        .collect();
    let total: f32 = weights.iter().sum();
    let points = POINTS as isize;
    let pass = |source: &[f32], along_x: bool| -> Vec<f32> {
        (0..points * points)
            .map(|i| {
                let (x, y) = (i % points, i / points);
                let sum: f32 = (-reach..=reach)
                    .zip(&weights)
                    .filter_map(|(d, weight)| {
                        let (x, y) = if along_x { (x + d, y) } else { (x, y + d) };
                        let inside = (0..points).contains(&x) && (0..points).contains(&y);
                        inside.then(|| weight * source[(y * points + x) as usize])
                    })
                    .sum();
                sum / total
            })
            .collect()
    };
    pass(&pass(source, true), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::area;

    #[test]
    fn blurring_keeps_the_area() {
        for &shape in Shape::ALL {
            for template in templates(shape) {
                let sum: f32 = template.cover.iter().sum::<f32>() * STEP * STEP;
                assert!((sum / area(shape) - 1.0).abs() < 0.02, "{shape}: {sum}");
            }
        }
    }

    #[test]
    fn a_blurred_ring_loses_its_hole() {
        let centre: Vec<f32> = templates(Shape::Ring)
            .iter()
            .map(|t| t.at(0.0, 0.0))
            .collect();
        assert!(
            centre.is_sorted() && centre[0] < 0.01 && centre[4] > 0.1,
            "{centre:?}"
        );
        assert_eq!(templates(Shape::Ring)[0].at(REACH, 0.0), 0.0);
        assert_eq!(templates(Shape::Ring)[0].at(0.0, f32::NAN), 0.0);
    }
}
