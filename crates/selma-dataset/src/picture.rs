//! What is a picture, by name and by content, and decoding it.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use selma_durable::DurableError;
use sha2::{Digest, Sha256};

use crate::{DatasetError, Problem};

/// The endings of pictures' names, without the dot, in lower case.
pub(crate) const PICTURE_ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Whether a name is that of a picture.
pub(crate) fn is_picture(name: &str) -> bool {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_lowercase());
    ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()))
}

/// As many bytes of a file as tell what it is.
pub(crate) const HEAD: u64 = 16;

/// Decodes PNG, JPEG or WebP, turned upright as its EXIF data says, as 8-bit RGB. Transparency is dropped, as PIL's
/// `convert("RGB")` does. `path` is what an error calls the picture.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<RgbImage, DatasetError> {
    let decode = || -> image::ImageResult<RgbImage> {
        let mut decoder = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()?
            .into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image.into_rgb8())
    };
    decode().map_err(|source| DatasetError::Image {
        action: "decode",
        path: path.into(),
        source,
    })
}

/// Sees that a file looks like a picture, as [`check_head`] does.
pub(crate) fn check_file(path: &Path) -> Result<(), DatasetError> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(DurableError::io("open", path))?;
    file.take(HEAD)
        .read_to_end(&mut head)
        .map_err(DurableError::io("read", path))?;
    check_head(path, &head)
}

/// Sees by the first [`HEAD`] bytes that a file is a picture of a kind that [`decode`] reads. Web pages and empty files in the
/// place of pictures are what downloads leave, and should be found before hours of work. Whether the rest is whole shows
/// when it is decoded.
pub(crate) fn check_head(path: &Path, head: &[u8]) -> Result<(), DatasetError> {
    let found = match image::guess_format(head) {
        Ok(ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP) => return Ok(()),
        Ok(other) => format!("{other:?}"),
        Err(_) if head.is_empty() => "an empty file".to_owned(),
        Err(_) => "something else".to_owned(),
    };
    Err(DatasetError::Entry {
        path: path.into(),
        problem: Problem::BadPicture,
        expected: "PNG, JPEG or WebP".to_owned(),
        found,
    })
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_pictures_from_other_files() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let mut bytes = Cursor::new(Vec::new());
            RgbImage::new(3, 2).write_to(&mut bytes, format).unwrap();
            let head = &bytes.into_inner()[..HEAD as usize];
            check_head(Path::new("a"), head).unwrap();
        }
        for (head, found) in [
            (b"".as_slice(), "an empty file"),
            (b"<!DOCTYPE html>", "something else"),
            (b"GIF89a..........", "Gif"),
            (b"\xff", "something else"),
        ] {
            let error = check_head(Path::new("d/a.png"), head).unwrap_err();
            let expected =
                format!("d/a.png: bad picture: expected PNG, JPEG or WebP, found {found}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
