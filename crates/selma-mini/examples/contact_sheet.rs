//! Draws a contact sheet: every shape in both sizes and every colour, then scenes of the training world.
//!
//! `cargo run -p selma-mini --example contact_sheet -- sheet.png`

use std::error::Error;

use image::{RgbImage, imageops};
use selma_mini::{Background, Colour, Object, SIDE, Scene, Shape, Size, TrainingWorld, render};

const COLUMNS: i64 = 8;
const ZOOM: u32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: contact_sheet FILE.png")?;
    let mut images = Vec::new();
    for (i, &shape) in Shape::ALL.iter().enumerate() {
        let object = |j: usize, size, x, radius| {
            let colour = Colour::ALL
                .iter()
                .cycle()
                .nth(i + j)
                .copied()
                .unwrap_or(Colour::Red);
            Object {
                shape,
                colour,
                size,
                x,
                y: 32.0,
                radius,
            }
        };
        let background = Background::ALL
            .iter()
            .cycle()
            .nth(i)
            .copied()
            .unwrap_or(Background::Grey);
        let objects = vec![
            object(0, Size::Large, 18.0, 10.5),
            object(3, Size::Small, 48.0, 6.2),
        ];
        images.push(render(&Scene {
            background,
            objects,
        }));
    }
    let world = TrainingWorld {
        seed: 1,
        caption_noise: 0.0,
        mix_ups: 0.0,
    };
    for item in world.iter().take(40) {
        images.push(render(&item?.scene));
    }
    let tile = SIDE * ZOOM + 4;
    let mut sheet = RgbImage::new(
        tile * COLUMNS as u32,
        tile * images.len().div_ceil(COLUMNS as usize) as u32,
    );
    for (i, image) in images.iter().enumerate() {
        let large = imageops::resize(
            image,
            SIDE * ZOOM,
            SIDE * ZOOM,
            imageops::FilterType::Nearest,
        );
        let (column, row) = (i as i64 % COLUMNS, i as i64 / COLUMNS);
        imageops::replace(
            &mut sheet,
            &large,
            column * i64::from(tile) + 2,
            row * i64::from(tile) + 2,
        );
    }
    sheet.save(path)?;
    Ok(())
}
