//! PNG files that say how they were drawn.
//!
//! A picture carries two texts: `parameters`, in the form of the web UI of AUTOMATIC1111 that most tools read, and `selma`, the [`Settings`] as JSON, with which
//! the picture can be drawn again.

mod parameters;
mod settings;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use ::png::{BitDepth, ColorType, Decoder, Encoder};
use image::RgbImage;
use serde::Serialize;

pub use parameters::parameters;
pub use settings::{Settings, UsedAdapter, UsedFile, UsedImage};

use crate::DiffusionError;

/// Keyword of the text that other programs read.
const PARAMETERS: &str = "parameters";
/// Keyword of the settings.
const SETTINGS: &str = "selma";

/// The bytes of a PNG file, with the settings if there are any. The same picture and settings give the same bytes.
///
/// # Errors
///
/// [`DiffusionError::Png`] if the picture is empty.
pub fn encode(image: &RgbImage, settings: Option<&Settings>) -> Result<Vec<u8>, DiffusionError> {
    let mut bytes = Vec::new();
    write(&mut bytes, image, settings)?;
    Ok(bytes)
}

fn write(
    bytes: &mut Vec<u8>,
    image: &RgbImage,
    settings: Option<&Settings>,
) -> Result<(), ::png::EncodingError> {
    let mut encoder = Encoder::new(bytes, image.width(), image.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    if let Some(settings) = settings {
        let texts = [
            (PARAMETERS, parameters(settings, image.dimensions())),
            (SETTINGS, settings.to_json()),
        ];
        for (keyword, text) in texts {
            // A text ends at a zero byte.
            let text = text.replace('\0', " ");
            // As Pillow does it: the plain chunk holds Latin-1 only.
            if text.chars().all(|c| u8::try_from(c).is_ok()) {
                encoder.add_text_chunk(keyword.to_owned(), text)?;
            } else {
                encoder.add_itxt_chunk(keyword.to_owned(), text)?;
            }
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()
}

/// What a PNG file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The text `parameters`, of whatever program.
    pub parameters: Option<String>,
    /// The settings, if this crate drew the picture.
    pub settings: Option<Settings>,
}

/// Reads what a PNG file says of itself.
///
/// # Errors
///
/// If the file cannot be read, is damaged or no PNG, or its settings are not those of this crate.
pub fn describe(path: impl AsRef<Path>) -> Result<Description, DiffusionError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| DiffusionError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let damaged = |source| DiffusionError::PngFile {
        path: path.to_owned(),
        source,
    };
    let mut reader = Decoder::new(BufReader::new(file))
        .read_info()
        .map_err(damaged)?;
    // Texts may stand behind the pixels.
    reader.finish().map_err(damaged)?;
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter();
    let mut texts: Vec<(&str, String)> = plain
        .map(|chunk| (chunk.keyword.as_str(), chunk.text.clone()))
        .collect();
    for chunk in &info.compressed_latin1_text {
        texts.extend(
            chunk
                .get_text()
                .ok()
                .map(|text| (chunk.keyword.as_str(), text)),
        );
    }
    for chunk in &info.utf8_text {
        texts.extend(
            chunk
                .get_text()
                .ok()
                .map(|text| (chunk.keyword.as_str(), text)),
        );
    }
    let text = |keyword| {
        let found = texts.iter().find(|(found, _)| *found == keyword);
        found.map(|(_, text)| text.clone())
    };
    let settings = text(SETTINGS).map(|json: String| Settings::from_json(&json));
    let settings = settings
        .transpose()
        .map_err(|source| DiffusionError::PngSettings {
            path: path.to_owned(),
            source,
        })?;
    Ok(Description {
        width: info.width,
        height: info.height,
        parameters: text(PARAMETERS),
        settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::MicroConditioning;
    use crate::schedulers::{PredictionType, SchedulerConfig};

    pub(super) fn settings(prompt: &str) -> Settings {
        let file = |name: &str| UsedFile::new(Path::new(name), "0123456789abcdef".to_owned());
        Settings {
            version: "0.1.0".to_owned(),
            prompt: prompt.to_owned(),
            negative_prompt: Some("blurry".to_owned()),
            seed: u64::MAX,
            steps: 20,
            guidance: 7.5,
            guidance_rescale: 0.7,
            eta: 0.5,
            clip_skip: Some(1),
            micro_conditioning: MicroConditioning {
                original_size: Some([512, 768]),
                ..MicroConditioning::default()
            },
            scheduler: "dpmpp_2m_karras".to_owned(),
            scheduler_config: SchedulerConfig {
                use_karras_sigmas: Some(true),
                ..SchedulerConfig::stable_diffusion(PredictionType::VPrediction)
            },
            dtype: "f32".to_owned(),
            vae_tile_size: Some(512),
            model: file("models/mini"),
            vae: None,
            adapters: vec![UsedAdapter {
                file: file("dir/one.safetensors"),
                weight: 0.8,
                fused: true,
            }],
            init_image: Some(UsedImage {
                file: file("star.png"),
                strength: 0.6,
            }),
            init_latents: None,
        }
    }

    #[test]
    fn a_file_says_how_it_was_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 100, 255]));
        for prompt in ["a café", "赤い円, two lines\nand \"quotes\"", "zero\0byte"] {
            let settings = settings(prompt);
            let bytes = encode(&image, Some(&settings)).unwrap();
            assert_eq!(bytes, encode(&image, Some(&settings)).unwrap());
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(crate::image::open(&path).unwrap(), image);
            let found = describe(&path).unwrap();
            assert_eq!((found.width, found.height), (5, 3));
            assert_eq!(found.settings, Some(settings));
            let begin = prompt.replace('\0', " ");
            assert!(found.parameters.unwrap().starts_with(&begin), "{prompt}");
        }
        std::fs::write(&path, encode(&image, None).unwrap()).unwrap();
        let found = describe(&path).unwrap();
        assert_eq!((found.settings, found.parameters), (None, None));
    }

    #[test]
    fn a_file_that_cannot_be_described_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let image = RgbImage::new(5, 3);
        let png = encode(&image, Some(&settings("red"))).unwrap();
        for bytes in [&png[..png.len() - 20], b"text"] {
            std::fs::write(&path, bytes).unwrap();
            let error = describe(&path).unwrap_err();
            assert!(matches!(error, DiffusionError::PngFile { .. }), "{error}");
        }
        assert!(encode(&RgbImage::new(0, 3), None).is_err());
    }
}
