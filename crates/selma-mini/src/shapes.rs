//! The geometry of the shapes: signed distances, tabulated once.
//!
//! Distances follow the usual formulas for a disc, an annulus and a polygon (Quilez, "2D distance functions").
//! Coordinates are in units of the radius, x to the right, y down; distances are negative inside.

use std::sync::OnceLock;

use crate::Shape;

/// How far from its centre a shape of radius 1 reaches along an axis, at most.
pub const EXTENT: f32 = 1.12;

/// The table covers `[-REACH, REACH]` along both axes.
const REACH: f32 = 1.6;
/// Table points along an axis.
const POINTS: usize = 161;

/// The signed distance of a point from the outline of a shape of radius 1.
pub(crate) fn signed_distance(shape: Shape, x: f32, y: f32) -> f32 {
    let step = 2.0 * REACH / (POINTS as f32 - 1.0);
    let limit = POINTS as f32 - 1.001;
    let gx = ((x + REACH) / step).clamp(0.0, limit);
    let gy = ((y + REACH) / step).clamp(0.0, limit);
    let (column, row) = (gx as usize, gy as usize);
    let (fx, fy) = (gx - column as f32, gy - row as f32);
    let table = table(shape);
    let at = |c: usize, r: usize| table.get(r * POINTS + c).copied().unwrap_or(REACH);
    let upper = at(column, row) * (1.0 - fx) + at(column + 1, row) * fx;
    let lower = at(column, row + 1) * (1.0 - fx) + at(column + 1, row + 1) * fx;
    upper * (1.0 - fy) + lower * fy
}

/// The area of a shape of radius 1.
pub(crate) fn area(shape: Shape) -> f32 {
    match shape {
        Shape::Circle => std::f32::consts::PI,
        Shape::Ring => std::f32::consts::PI * (RING_OUTER.powi(2) - RING_INNER.powi(2)),
        _ => {
            let outline = outline(shape);
            let twice: f32 = edges(&outline)
                .map(|((ax, ay), (bx, by))| ax * by - bx * ay)
                .sum();
            twice.abs() / 2.0
        }
    }
}

/// The centre of mass of a shape of radius 1.
pub(crate) fn centroid(shape: Shape) -> (f32, f32) {
    let outline = outline(shape);
    let (mut twice, mut x, mut y) = (0.0, 0.0, 0.0);
    for ((ax, ay), (bx, by)) in edges(&outline) {
        let cross = ax * by - bx * ay;
        twice += cross;
        x += (ax + bx) * cross;
        y += (ay + by) * cross;
    }
    if twice == 0.0 {
        (0.0, 0.0)
    } else {
        (x / (3.0 * twice), y / (3.0 * twice))
    }
}

const RING_OUTER: f32 = 1.06;
const RING_INNER: f32 = 0.56;

type Point = (f32, f32);

fn table(shape: Shape) -> &'static [f32] {
    static TABLES: [OnceLock<Vec<f32>>; 8] = [const { OnceLock::new() }; 8];
    let fill = || {
        let outline = outline(shape);
        let step = 2.0 * REACH / (POINTS as f32 - 1.0);
        let coordinate = |i: usize| i as f32 * step - REACH;
        (0..POINTS * POINTS)
            .map(|i| {
                exact_distance(
                    shape,
                    &outline,
                    coordinate(i % POINTS),
                    coordinate(i / POINTS),
                )
            })
            .collect()
    };
    TABLES
        .get(shape as usize)
        .map_or(&[], |cell| cell.get_or_init(fill))
}

fn exact_distance(shape: Shape, outline: &[Point], x: f32, y: f32) -> f32 {
    let from_centre = x.hypot(y);
    match shape {
        Shape::Circle => from_centre - 1.0,
        Shape::Ring => (from_centre - RING_OUTER).max(RING_INNER - from_centre),
        _ => polygon_distance(outline, x, y),
    }
}

/// Nearest edge, and the even-odd rule for the sign.
fn polygon_distance(outline: &[Point], x: f32, y: f32) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    for ((ax, ay), (bx, by)) in edges(outline) {
        let (ex, ey) = (bx - ax, by - ay);
        let along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        nearest = nearest.min((x - ax - ex * along).hypot(y - ay - ey * along));
        if (ay > y) != (by > y) && x < ax + ex * (y - ay) / ey {
            inside = !inside;
        }
    }
    if inside { -nearest } else { nearest }
}

fn edges(outline: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    outline
        .iter()
        .copied()
        .zip(outline.iter().copied().cycle().skip(1))
}

/// The corners of a polygonal shape; empty for the round ones.
fn outline(shape: Shape) -> Vec<Point> {
    match shape {
        Shape::Circle | Shape::Ring => Vec::new(),
        Shape::Square => vec![(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        Shape::Triangle => vec![(0.0, -1.02), (1.12, 0.98), (-1.12, 0.98)],
        Shape::Diamond => vec![(0.0, -EXTENT), (0.78, 0.0), (0.0, EXTENT), (-0.78, 0.0)],
        Shape::Cross => {
            let (arm, half) = (1.08, 0.36);
            vec![
                (-half, -arm),
                (half, -arm),
                (half, -half),
                (arm, -half),
                (arm, half),
                (half, half),
                (half, arm),
                (-half, arm),
                (-half, half),
                (-arm, half),
                (-arm, -half),
                (-half, -half),
            ]
        }
        Shape::Star => (0..10)
            .map(|i| {
                let angle = std::f32::consts::PI * i as f32 / 5.0;
                let r = if i % 2 == 0 { 1.17 } else { 0.5 };
                (r * angle.sin(), 0.1 - r * angle.cos())
            })
            .collect(),
        // The heart of trigonometry, 16 sin^3 t and 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, moved and scaled to the
        // extent; its y runs from -17 to 11.9.
        Shape::Heart => (0..72)
            .map(|i| {
                let t = std::f32::consts::TAU * i as f32 / 72.0;
                let x = 16.0 * t.sin().powi(3);
                let y = 13.0 * t.cos()
                    - 5.0 * (2.0 * t).cos()
                    - 2.0 * (3.0 * t).cos()
                    - (4.0 * t).cos();
                (x * 1.1 / 16.0, -(y + 2.55) / 14.0)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fill_their_extent_but_not_more() {
        for &shape in Shape::ALL {
            let mut reach = 0.0_f32;
            for i in 0..400 {
                for j in 0..400 {
                    let (x, y) = (i as f32 / 125.0 - 1.6, j as f32 / 125.0 - 1.6);
                    if signed_distance(shape, x, y) < 0.0 {
                        reach = reach.max(x.abs()).max(y.abs());
                    }
                }
            }
            assert!(
                (0.85..=EXTENT + 0.01).contains(&reach),
                "{shape} reaches {reach}"
            );
        }
    }

    #[test]
    fn the_area_is_that_of_the_inside() {
        for &shape in Shape::ALL {
            let inside = (0..640 * 640)
                .filter(|i| {
                    let (x, y) = (
                        (i % 640) as f32 / 200.0 - 1.6,
                        (i / 640) as f32 / 200.0 - 1.6,
                    );
                    signed_distance(shape, x, y) < 0.0
                })
                .count() as f32
                / 40000.0;
            assert!(
                (inside / area(shape) - 1.0).abs() < 0.02,
                "{shape}: {inside} against {}",
                area(shape)
            );
        }
    }

    #[test]
    fn only_the_ring_is_hollow() {
        for &shape in Shape::ALL {
            assert_eq!(
                signed_distance(shape, 0.0, 0.1) > 0.0,
                shape == Shape::Ring,
                "{shape}"
            );
        }
    }
}
