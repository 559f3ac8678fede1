//! The renderer: flat colours with anti-aliased edges.

use image::{Rgb, RgbImage};

use crate::Scene;
use crate::scene::SIDE;
use crate::shapes::{EXTENT, signed_distance};

/// Draws a scene as a 64 by 64 sRGB image. The coverage of a pixel by an object is taken from the signed distance of
/// the pixel's centre to the outline, over one pixel.
///
/// ```
/// use selma_mini::{Background, Colour, Object, Scene, Shape, Size, render};
///
/// let star = Object { shape: Shape::Star, colour: Colour::Red, size: Size::Large, x: 32.0, y: 32.0, radius: 11.0 };
/// let image = render(&Scene { background: Background::Navy, objects: vec![star] });
/// assert_eq!(image.get_pixel(32, 32).0, Colour::Red.rgb());
/// assert_eq!(image.get_pixel(2, 2).0, Background::Navy.rgb());
/// ```
pub fn render(scene: &Scene) -> RgbImage {
    let mut image = RgbImage::from_pixel(SIDE, SIDE, Rgb(scene.background.rgb()));
    for object in &scene.objects {
        let reach = object.radius * EXTENT + 1.0;
        let paint = object.colour.rgb();
        for y in pixels(object.y, reach) {
            for x in pixels(object.x, reach) {
                let (px, py) = (x as f32 + 0.5 - object.x, y as f32 + 0.5 - object.y);
                let distance = object.radius
                    * signed_distance(object.shape, px / object.radius, py / object.radius);
                let coverage = (0.5 - distance).clamp(0.0, 1.0);
                if coverage > 0.0
                    && let Some(pixel) = image.get_pixel_mut_checked(x, y)
                {
                    for (channel, colour) in pixel.0.iter_mut().zip(paint) {
                        let mixed =
                            f32::from(*channel) * (1.0 - coverage) + f32::from(colour) * coverage;
                        *channel = mixed.round() as u8;
                    }
                }
            }
        }
    }
    image
}

/// The rows or columns that an object of this reach may touch.
fn pixels(centre: f32, reach: f32) -> std::ops::Range<u32> {
    let limit = SIDE as f32;
    let low = (centre - reach).floor().clamp(0.0, limit) as u32;
    let high = (centre + reach).ceil().clamp(0.0, limit) as u32;
    low..high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::area;
    use crate::{Background, Colour, Object, Shape, Size};

    fn scene(shape: Shape, x: f32) -> Scene {
        let object = Object {
            shape,
            colour: Colour::White,
            size: Size::Large,
            x,
            y: 32.0,
            radius: 11.0,
        };
        Scene {
            background: Background::Navy,
            objects: vec![object],
        }
    }

    #[test]
    fn coverage_sums_to_the_area() {
        let [low, high] = [Background::Navy.rgb()[0], Colour::White.rgb()[0]].map(f32::from);
        for &shape in Shape::ALL {
            let image = render(&scene(shape, 31.7));
            let covered: f32 = image
                .pixels()
                .map(|p| (f32::from(p.0[0]) - low) / (high - low))
                .sum();
            let expected = area(shape) * 121.0;
            assert!(
                (covered / expected - 1.0).abs() < 0.03,
                "{shape}: {covered} against {expected}"
            );
        }
    }

    #[test]
    fn objects_beyond_the_border_are_cut_off() {
        let image = render(&scene(Shape::Square, -4.0));
        assert_eq!(image.get_pixel(0, 32).0, Colour::White.rgb());
        assert_eq!(
            render(&scene(Shape::Square, f32::NAN)),
            render(&scene(Shape::Square, -400.0))
        );
    }
}
