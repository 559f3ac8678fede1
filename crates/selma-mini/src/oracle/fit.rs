//! Which shape a footprint has, and how large it is.
#![allow(
    clippy::indexing_slicing,
    reason = "indices run over grids of WIDTH * WIDTH built by the segmentation"
)]

use super::segment::{Blob, WIDTH};
use super::template::{Template, templates};
use crate::Shape;
use crate::shapes::{area, centroid};

/// Radii of the templates, relative to the radius that the area gives.
const SCALES: [f32; 3] = [0.94, 1.06, 1.13];
/// Shapes for which those radii are tried.
const FINALISTS: usize = 2;
/// Share of the footprint's energy that the best template may leave unexplained; beyond it is a blot.
const WORST: f32 = 0.2;

/// What a footprint looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// The best shape, `None` where even that one fits badly.
    pub(super) shape: Option<Shape>,
    /// Radius in pixels.
    pub(super) radius: f32,
    /// Centre of the shape.
    pub(super) x: f32,
    pub(super) y: f32,
    /// Share of the energy unexplained, 0 to 1.
    pub(super) error: f32,
}

/// Compares a footprint with every shape of the same area and centre of mass, over a few radii and degrees of blur.
pub(super) fn fit(blob: &Blob) -> Option<Fit> {
    let (mut mass, mut x, mut y) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (i, &c) in blob.cover.iter().enumerate() {
        mass += c;
        x += c * ((i % WIDTH) as f32 + 0.5);
        y += c * ((i / WIDTH) as f32 + 0.5);
    }
    if mass <= 0.0 {
        return None;
    }
    let (x, y) = (x / mass, y / mass);
    let pixels = surroundings(blob, x, y, mass);
    let best_of = |shape: Shape, scales: &[f32]| -> Option<Fit> {
        let (cx, cy) = centroid(shape);
        let fits = scales.iter().flat_map(|scale| {
            let radius = scale * (mass / area(shape)).sqrt();
            let (x, y) = (x - cx * radius, y - cy * radius);
            let pixels = &pixels;
            templates(shape).iter().map(move |template| {
                let error = mismatch(pixels, template, radius, x, y);
                Fit {
                    shape: Some(shape),
                    radius,
                    x,
                    y,
                    error,
                }
            })
        });
        fits.min_by(|a, b| a.error.total_cmp(&b.error))
    };
    // The area's own radius tells most shapes apart; the other radii are tried for the best ones only.
    let mut candidates: Vec<Fit> = Shape::ALL
        .iter()
        .filter_map(|&shape| best_of(shape, &[1.0]))
        .collect();
    candidates.sort_by(|a, b| a.error.total_cmp(&b.error));
    candidates.truncate(FINALISTS);
    let refined: Vec<Fit> = candidates
        .iter()
        .filter_map(|c| best_of(c.shape?, &SCALES))
        .collect();
    let best = candidates
        .into_iter()
        .chain(refined)
        .min_by(|a, b| a.error.total_cmp(&b.error));
    best.map(|b| {
        if b.error > WORST {
            Fit { shape: None, ..b }
        } else {
            b
        }
    })
}

/// Centre and coverage of the pixels that the footprint or any template of its area can touch.
fn surroundings(blob: &Blob, x: f32, y: f32, mass: f32) -> Vec<[f32; 3]> {
    // The star has the least area, 1.7, for its radius.
    let reach = 1.5 * (mass / 1.7).sqrt();
    let near =
        |[px, py, a]: &[f32; 3]| *a > 0.0 || ((px - x).abs() < reach && (py - y).abs() < reach);
    let pixel = |(i, &a): (usize, &f32)| [(i % WIDTH) as f32 + 0.5, (i / WIDTH) as f32 + 0.5, a];
    blob.cover
        .iter()
        .enumerate()
        .map(pixel)
        .filter(near)
        .collect()
}

/// The share of the footprint's energy that a template leaves unexplained at its best amplitude g between 0.7 and
/// 1.1: sum (a - g t)^2 / sum a^2.
fn mismatch(pixels: &[[f32; 3]], template: &Template, radius: f32, x: f32, y: f32) -> f32 {
    let (mut aa, mut at, mut tt) = (0.0_f32, 0.0_f32, 0.0_f32);
    for &[px, py, a] in pixels {
        let t = template.at((px - x) / radius, (py - y) / radius);
        aa += a * a;
        at += a * t;
        tt += t * t;
    }
    if aa <= 0.0 || tt <= 0.0 {
        return 1.0;
    }
    let gain = (at / tt).clamp(0.7, 1.1);
    ((aa - 2.0 * gain * at + gain * gain * tt) / aa).max(0.0)
}
