//! Resampling as Pillow does it: first the rows, then the columns, with weights in fixed-point numbers and bytes in between.

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
    let first = rows.first().map_or(0, |window| window.start);
    let end = rows.last().map_or(0, Window::end);
    let narrowed = along_rows(image, first..end, &columns);
    along_columns(&narrowed, first, columns.len(), &rows)
}

/// Rows `rows` of the picture, each with the pixels of `columns`.
fn along_rows(image: &RgbImage, rows: Range<usize>, columns: &[Window]) -> Vec<u8> {
    let row = CHANNELS * image.width() as usize;
    let mut narrowed = Vec::with_capacity(rows.len() * columns.len() * CHANNELS);
    let lines = image.as_raw().chunks_exact(row.max(1));
    for line in lines.skip(rows.start).take(rows.len()) {
        let (pixels, _) = line.as_chunks::<CHANNELS>();
        for window in columns {
            let mut sums = [HALF; CHANNELS];
            for (pixel, weight) in pixels.iter().skip(window.start).zip(&window.weights) {
                for (sum, byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*byte) * weight;
                }
            }
            narrowed.extend(sums.map(byte));
        }
    }
    narrowed
}

/// The picture whose rows are those of `windows`, from rows of `width` pixels, the first of which is row `first` of the picture that is read.
fn along_columns(narrowed: &[u8], first: usize, width: usize, windows: &[Window]) -> RgbImage {
    let mut resized = RgbImage::new(width as u32, windows.len() as u32);
    let row = (CHANNELS * width).max(1);
    let mut sums = vec![HALF; row];
    for (window, line) in windows.iter().zip(resized.chunks_exact_mut(row)) {
        sums.fill(HALF);
        let lines = narrowed.chunks_exact(row).skip(window.start - first);
        for (bytes, weight) in lines.zip(&window.weights) {
            for (sum, byte) in sums.iter_mut().zip(bytes) {
                *sum += i32::from(*byte) * weight;
            }
        }
        for (byte_out, sum) in line.iter_mut().zip(&sums) {
            *byte_out = byte(*sum);
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
