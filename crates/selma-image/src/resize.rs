//! Resampling as Pillow does it: the rows and the columns one after the other, with weights in fixed-point numbers and bytes in between.

use std::ops::Range;

use image::RgbImage;
use image::math::Rect;

use crate::Filter;
use crate::window::{PRECISION, Window, windows};

/// Half a grey level: sums are cut off, not rounded.
const HALF: i32 = 1 << (PRECISION - 1);
/// Bytes of a pixel.
const CHANNELS: usize = 3;

/// Resizes to `width` by `height`, bit for bit as Pillow's `Image.resize`. What is made smaller is averaged over all of its pixels (antialiasing).
#[must_use]
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let whole = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    resize_crop(image, width, height, whole, filter)
}

/// The part `part` of what [`resize`] gives, without the time and memory for the rest. Where it reaches beyond the picture, it is cut off.
#[must_use]
pub fn resize_crop(
    image: &RgbImage,
    width: u32,
    height: u32,
    part: Rect,
    filter: Filter,
) -> RgbImage {
    let range = |start: u32, length: u32| start..start.saturating_add(length);
    let columns = windows(filter, image.width(), width, range(part.x, part.width));
    let rows = windows(filter, image.height(), height, range(part.y, part.height));
    let (across, down) = (span(&columns), span(&rows));
    if columns_first(image, width, height) {
        let low = along_columns(image, across.clone(), 0, &rows);
        along_rows(&low, 0..rows.len(), across.start, &columns)
    } else {
        let narrow = along_rows(image, down.clone(), 0, &columns);
        along_columns(&narrow, 0..columns.len(), down.start, &rows)
    }
}

/// Whether columns are done before rows: as in Pillow 13, if the height shrinks by more than twice as many pixels as the width.
fn columns_first(image: &RgbImage, width: u32, height: u32) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (across, down) = (lost(image.width(), width), lost(image.height(), height));
    down > 0 && down > 2 * across
}

/// The pixels that windows look at.
fn span(windows: &[Window]) -> Range<usize> {
    let start = windows.first().map_or(0, |window| window.start);
    start..windows.last().map_or(0, Window::end)
}

/// The rows `rows` of a picture, each with the pixels of `columns`. The picture's first column is column `first` for these.
fn along_rows(image: &RgbImage, rows: Range<usize>, first: usize, columns: &[Window]) -> RgbImage {
    let mut resized = RgbImage::new(columns.len() as u32, rows.len() as u32);
    let row = |width: usize| (CHANNELS * width).max(1);
    let lines = image.as_raw().chunks_exact(row(image.width() as usize));
    let made = resized.chunks_exact_mut(row(columns.len()));
    for (line, made) in lines.skip(rows.start).zip(made) {
        let (pixels, _) = line.as_chunks::<CHANNELS>();
        let (made, _) = made.as_chunks_mut::<CHANNELS>();
        for (window, made) in columns.iter().zip(made) {
            let mut sums = [HALF; CHANNELS];
            let pixels = pixels.iter().skip(window.start - first);
            for (pixel, weight) in pixels.zip(&window.weights) {
                for (sum, byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*byte) * weight;
                }
            }
            *made = sums.map(byte);
        }
    }
    resized
}

/// The columns `columns` of a picture, each with the pixels of `rows`. The picture's first row is row `first` for these.
fn along_columns(
    image: &RgbImage,
    columns: Range<usize>,
    first: usize,
    rows: &[Window],
) -> RgbImage {
    let mut resized = RgbImage::new(columns.len() as u32, rows.len() as u32);
    let row = |width: usize| (CHANNELS * width).max(1);
    let lines = image.as_raw().chunks_exact(row(image.width() as usize));
    let mut sums = vec![HALF; CHANNELS * columns.len()];
    for (window, made) in rows
        .iter()
        .zip(resized.chunks_exact_mut(row(columns.len())))
    {
        sums.fill(HALF);
        let lines = lines.clone().skip(window.start - first);
        for (line, weight) in lines.zip(&window.weights) {
            let bytes = line.iter().skip(CHANNELS * columns.start);
            for (sum, byte) in sums.iter_mut().zip(bytes) {
                *sum += i32::from(*byte) * weight;
            }
        }
        for (made, sum) in made.iter_mut().zip(&sums) {
            *made = byte(*sum);
        }
    }
    resized
}

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_one_colour_keeps_it_at_every_size() {
        let image = RgbImage::from_pixel(7, 5, image::Rgb([255, 128, 3]));
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (width, height) in [(7, 5), (14, 10), (3, 2), (1, 1), (20, 2)] {
                let resized = resize(&image, width, height, filter);
                assert_eq!(resized.dimensions(), (width, height));
                assert!(resized.pixels().all(|pixel| pixel.0 == [255, 128, 3]));
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let image = RgbImage::from_fn(6, 4, |x, y| image::Rgb([x as u8 * 40, y as u8 * 60, 9]));
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            assert_eq!(resize(&image, 6, 4, filter), image);
        }
    }

    #[test]
    fn nothing_is_no_reason_to_panic() {
        let image = RgbImage::from_pixel(6, 4, image::Rgb([9, 9, 9]));
        assert_eq!(resize(&image, 0, 3, Filter::Bicubic).dimensions(), (0, 3));
        assert_eq!(resize(&image, 3, 0, Filter::Bicubic).dimensions(), (3, 0));
        let empty = resize(&RgbImage::new(0, 0), 2, 2, Filter::Bicubic);
        assert_eq!(empty.into_raw(), [0; 12]);
    }
}
