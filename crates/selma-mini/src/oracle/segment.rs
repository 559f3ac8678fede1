//! Cutting a picture into its background and coloured blobs.
#![allow(
    clippy::indexing_slicing,
    reason = "indices run over grids of SIDE * SIDE built here"
)]

use image::RgbImage;

use crate::scene::SIDE;
use crate::{Background, Colour};

pub(super) const WIDTH: usize = SIDE as usize;
const PIXELS: usize = WIDTH * WIDTH;

/// Width of the rim, in pixels.
const RIM: usize = 2;
/// Distance from the background, in sRGB units, from which a pixel may belong to an object: half of the least
/// contrast of an object.
const FAINT: f32 = 40.0;
/// Coverage from which a pixel belongs to the core of an object; cores that touch are one object.
const CORE: f32 = 0.45;
/// Fewest core pixels, and least area in pixels, of an object. The smallest object has an area of 122.
const SPECK: usize = 20;
const LEAST_AREA: f32 = 34.0;
/// Share of a blob's pixels that a second colour needs to be an object of its own.
const SECOND_SHARE: f32 = 0.25;
/// How far beyond its faint pixels the blurred edge of an object is gathered, in pixels.
const TAIL: usize = 2;

type Rgb = [f32; 3];

/// The blurred footprint of one object.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) colour: Colour,
    /// Coverage of each pixel by the object, 0 to 1, row by row.
    pub(super) cover: Vec<f32>,
}

/// The colour of the background: of the palette's backgrounds and the most frequent colour the one that most pixels
/// of the rim are near to, refined by their mean. Four large objects cover more of a picture than its background does,
/// but no object reaches the rim.
pub(super) fn background_colour(image: &RgbImage) -> Rgb {
    let pixels = smoothed(&pixels(image));
    let on_rim = |i: &usize| {
        let middle = RIM..WIDTH - RIM;
        !(middle.contains(&(i % WIDTH)) && middle.contains(&(i / WIDTH)))
    };
    let pixels: Vec<Rgb> = (0..PIXELS).filter(on_rim).map(|i| pixels[i]).collect();
    let near = |centre: Rgb| pixels.iter().filter(move |p| distance(**p, centre) < FAINT);
    let palette = Background::ALL.iter().map(|b| b.rgb().map(f32::from));
    let candidates = palette.chain([most_frequent(&pixels)]);
    let mut mean = candidates
        .max_by_key(|&c| near(c).count())
        .unwrap_or([0.0; 3]);
    for _ in 0..4 {
        let (count, sum) = near(mean).fold((0.0, [0.0; 3]), |(n, s), p| (n + 1.0, add(s, *p, 1.0)));
        if count > 0.0 {
            mean = sum.map(|v| v / count);
        }
    }
    mean
}

/// The centre of the fullest of 512 cells of the colour cube.
fn most_frequent(pixels: &[Rgb]) -> Rgb {
    let mut votes = vec![0_usize; 512];
    for pixel in pixels {
        let [r, g, b] = pixel.map(|v| (v / 32.0) as usize);
        votes[(r * 8 + g) * 8 + b] += 1;
    }
    let mode = (0..512).max_by_key(|&i| votes[i]).unwrap_or(0);
    [mode / 64, mode / 8 % 8, mode % 8].map(|v| v as f32 * 32.0 + 16.0)
}

/// The palette's background nearest to a colour, unless it is nearer to no one than 70.
pub(super) fn nearest_background(colour: Rgb) -> Option<Background> {
    let distance_to = |b: &Background| distance(b.rgb().map(f32::from), colour);
    let nearest = Background::ALL
        .iter()
        .copied()
        .min_by(|a, b| distance_to(a).total_cmp(&distance_to(b)))?;
    (distance_to(&nearest) < 70.0).then_some(nearest)
}

/// The objects' footprints.
pub(super) fn blobs(image: &RgbImage, background: Rgb) -> Vec<Blob> {
    let sharp = pixels(image);
    let smooth = smoothed(&sharp);
    let faint: Vec<bool> = smooth
        .iter()
        .map(|&p| distance(p, background) > FAINT)
        .collect();
    let mut blobs = Vec::new();
    for component in components(&faint) {
        for (colour, part) in by_colour(&component, &smooth, background) {
            for footprint in cores(&part, colour, &smooth, &faint, background) {
                let direction = add(colour.rgb().map(f32::from), background, -1.0);
                let length = dot(direction, direction).max(1.0);
                let mut cover = vec![0.0; PIXELS];
                for i in footprint {
                    let share = dot(add(sharp[i], background, -1.0), direction) / length;
                    cover[i] = if share < 0.08 { 0.0 } else { share.min(1.0) };
                }
                if cover.iter().sum::<f32>() >= LEAST_AREA {
                    blobs.push(Blob { colour, cover });
                }
            }
        }
    }
    blobs
}

/// Splits a component by colour: usually it has one.
fn by_colour(component: &[usize], smooth: &[Rgb], background: Rgb) -> Vec<(Colour, Vec<usize>)> {
    let costs = |i: usize| {
        Colour::ALL
            .iter()
            .map(move |&c| mixing_cost(smooth[i], background, c))
    };
    let inside = eroded(component);
    let voters = if inside.len() >= 8 {
        &inside
    } else {
        component
    };
    let mut totals = vec![0.0; Colour::ALL.len()];
    let mut votes = vec![0_usize; Colour::ALL.len()];
    for &i in voters {
        for (total, cost) in totals.iter_mut().zip(costs(i)) {
            *total += cost.min(100.0);
        }
        votes[least(costs(i))] += 1;
    }
    let main = least(totals.into_iter());
    let second = (0..votes.len())
        .filter(|&c| c != main)
        .max_by_key(|&c| votes[c])
        .unwrap_or(main);
    if votes[second] < SPECK || (votes[second] as f32) < SECOND_SHARE * voters.len() as f32 {
        return vec![(Colour::ALL[main], component.to_vec())];
    }
    [main, second]
        .into_iter()
        .map(|c| {
            let other = main + second - c;
            let cost = |i, colour: usize| mixing_cost(smooth[i], background, Colour::ALL[colour]);
            let part = component
                .iter()
                .copied()
                .filter(|&i| cost(i, c) < cost(i, other))
                .collect();
            (Colour::ALL[c], part)
        })
        .collect()
}

/// How badly a pixel is explained as `colour` mixed into the background with a share of at least one half: the
/// distance to that line, plus a price for what lacks from full colour, so that a full colour beats a diluted one.
fn mixing_cost(pixel: Rgb, background: Rgb, colour: Colour) -> f32 {
    let direction = add(colour.rgb().map(f32::from), background, -1.0);
    let offset = add(pixel, background, -1.0);
    let share = (dot(offset, direction) / dot(direction, direction).max(1.0)).clamp(0.5, 1.1);
    let rest = add(offset, direction, -share);
    dot(rest, rest).sqrt() + 60.0 * (1.0 - share).max(0.0)
}

/// The pixels of each object in a part of one colour: cores grown over the part's faint pixels and a little beyond.
fn cores(
    part: &[usize],
    colour: Colour,
    smooth: &[Rgb],
    faint: &[bool],
    background: Rgb,
) -> Vec<Vec<usize>> {
    let direction = add(colour.rgb().map(f32::from), background, -1.0);
    let length = dot(direction, direction).max(1.0);
    let mut core = vec![false; PIXELS];
    let mut allowed: Vec<bool> = faint.iter().map(|f| !f).collect();
    for &i in part {
        core[i] = dot(add(smooth[i], background, -1.0), direction) / length > CORE;
        allowed[i] = true;
    }
    let found: Vec<Vec<usize>> = components(&core)
        .into_iter()
        .filter(|c| c.len() >= SPECK)
        .collect();
    let mut owner = vec![usize::MAX; PIXELS];
    for (label, pixels) in found.iter().enumerate() {
        for &i in pixels {
            owner[i] = label;
        }
    }
    // First over all of the part, then over the background's edge.
    let mut inside = vec![false; PIXELS];
    for &i in part {
        inside[i] = true;
    }
    while grow(&mut owner, &inside) {}
    for _ in 0..TAIL {
        grow(&mut owner, &allowed);
    }
    (0..found.len())
        .map(|label| (0..PIXELS).filter(|&i| owner[i] == label).collect())
        .collect()
}

/// Gives each allowed pixel without an owner to the owner of a neighbour; whether any was given.
fn grow(owner: &mut [usize], allowed: &[bool]) -> bool {
    let given: Vec<(usize, usize)> = (0..PIXELS)
        .filter(|&i| allowed[i] && owner[i] == usize::MAX)
        .filter_map(|i| {
            neighbours(i)
                .map(|j| owner[j])
                .find(|&o| o != usize::MAX)
                .map(|o| (i, o))
        })
        .collect();
    for &(i, label) in &given {
        owner[i] = label;
    }
    !given.is_empty()
}

/// The 4-connected components of a mask.
fn components(mask: &[bool]) -> Vec<Vec<usize>> {
    let mut seen = vec![false; PIXELS];
    let mut found = Vec::new();
    for start in 0..PIXELS {
        if !mask[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        let mut component = vec![start];
        let mut next = 0;
        while next < component.len() {
            for j in neighbours(component[next]) {
                if mask[j] && !seen[j] {
                    seen[j] = true;
                    component.push(j);
                }
            }
            next += 1;
        }
        found.push(component);
    }
    found
}

/// The pixels of a component whose four neighbours belong to it too.
fn eroded(component: &[usize]) -> Vec<usize> {
    let mut inside = vec![false; PIXELS];
    for &i in component {
        inside[i] = true;
    }
    component
        .iter()
        .copied()
        .filter(|&i| neighbours(i).all(|j| inside[j]))
        .collect()
}

fn neighbours(i: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (i % WIDTH, i / WIDTH);
    [
        (x > 0).then(|| i - 1),
        (x + 1 < WIDTH).then_some(i + 1),
        (y > 0).then(|| i - WIDTH),
        (y + 1 < WIDTH).then_some(i + WIDTH),
    ]
    .into_iter()
    .flatten()
}

fn pixels(image: &RgbImage) -> Vec<Rgb> {
    image.pixels().map(|p| p.0.map(f32::from)).collect()
}

/// A 3 by 3 binomial filter, against pixel noise.
fn smoothed(pixels: &[Rgb]) -> Vec<Rgb> {
    let pass = |source: &[Rgb], step: usize, at: fn(usize) -> usize| -> Vec<Rgb> {
        (0..PIXELS)
            .map(|i| {
                let before = if at(i) > 0 { i - step } else { i };
                let after = if at(i) + 1 < WIDTH { i + step } else { i };
                add(
                    add(source[i].map(|v| v * 0.5), source[before], 0.25),
                    source[after],
                    0.25,
                )
            })
            .collect()
    };
    let rows = pass(pixels, 1, |i| i % WIDTH);
    pass(&rows, WIDTH, |i| i / WIDTH)
}

fn least(values: impl Iterator<Item = f32>) -> usize {
    values
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(i, _)| i)
}

fn add(a: Rgb, b: Rgb, factor: f32) -> Rgb {
    [
        a[0] + b[0] * factor,
        a[1] + b[1] * factor,
        a[2] + b[2] * factor,
    ]
}

fn dot(a: Rgb, b: Rgb) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn distance(a: Rgb, b: Rgb) -> f32 {
    let d = add(a, b, -1.0);
    dot(d, d).sqrt()
}
