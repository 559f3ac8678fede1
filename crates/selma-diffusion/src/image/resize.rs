//! Resampling as Pillow does it, whose pictures diffusers works on.

use image::RgbImage;

/// Half the width of the filter, in pixels of the picture that is made or, where that is smaller, of the one that is read.
const SUPPORT: f64 = 3.0;
/// Bits behind the point of a weight.
const PRECISION: u32 = 22;

/// Resizes to `width` by `height` with the Lanczos filter, bit for bit as Pillow's `Image.resize(.., LANCZOS)`: first the rows, then the columns, with weights
/// in fixed-point numbers and bytes in between.
#[must_use]
pub fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let mut resized = image.clone();
    if width != image.width() {
        resized = along_rows(&resized, width);
    }
    if height != image.height() {
        // Columns are the rows of the transposed picture.
        resized = transposed(&along_rows(&transposed(&resized), height));
    }
    resized
}

fn transposed(image: &RgbImage) -> RgbImage {
    RgbImage::from_fn(image.height(), image.width(), |x, y| *image.get_pixel(y, x))
}

fn along_rows(image: &RgbImage, width: u32) -> RgbImage {
    let windows = windows(image.width() as usize, width as usize);
    let mut resized = RgbImage::new(width, image.height());
    for (from, to) in image.rows().zip(resized.rows_mut()) {
        let pixels: Vec<[u8; 3]> = from.map(|pixel| pixel.0).collect();
        for (window, pixel) in windows.iter().zip(to) {
            let mut sums = [1_i64 << (PRECISION - 1); 3];
            for (values, weight) in pixels.iter().skip(window.start).zip(&window.weights) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += i64::from(*value) * weight;
                }
            }
            pixel.0 = sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8);
        }
    }
    resized
}

/// What one pixel is the weighted sum of.
struct Window {
    start: usize,
    weights: Vec<i64>,
}

/// The windows of all pixels of a row of `to` pixels made from one of `from`.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let ratio = from as f64 / to as f64;
    let stretch = ratio.max(1.0);
    let reach = SUPPORT * stretch;
    (0..to)
        .map(|pixel| {
            let centre = (pixel as f64 + 0.5) * ratio;
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weights: Vec<f64> = (start..end)
                .map(|at| lanczos((at as f64 - centre + 0.5) / stretch))
                .collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| {
                let scaled = weight / sum * f64::from(1 << PRECISION);
                scaled.round() as i64
            };
            Window {
                start,
                weights: weights.iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        if x == 0.0 {
            1.0
        } else {
            (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI)
        }
    };
    if x.abs() < SUPPORT {
        sinc(x) * sinc(x / SUPPORT)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_one_colour_keeps_it_at_every_size() {
        let image = RgbImage::from_pixel(7, 5, image::Rgb([255, 128, 3]));
        for (width, height) in [(7, 5), (14, 10), (3, 2), (1, 1), (20, 2)] {
            let resized = resize(&image, width, height);
            assert_eq!(resized.dimensions(), (width, height));
            assert!(resized.pixels().all(|pixel| pixel.0 == [255, 128, 3]));
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let image = RgbImage::from_fn(6, 4, |x, y| image::Rgb([x as u8 * 40, y as u8 * 60, 9]));
        assert_eq!(resize(&image, 6, 4), image);
    }
}
