//! Where the images of an evaluation come from.

use std::path::PathBuf;

use image::{ImageError, RgbImage};

use crate::EvalError;

/// Gives the image of each item.
///
/// Any closure from an item id to an image is one; [`ImageFolder`] reads them from disk.
pub trait ImageSource {
    /// The image made for an item's prompt.
    ///
    /// # Errors
    /// [`EvalError::MissingImage`] or [`EvalError::Image`].
    fn load(&self, item_id: &str) -> Result<RgbImage, EvalError>;

    /// Called for every item before the first question is asked, so that what is missing is known at the start and
    /// not after hours. The default finds nothing wrong.
    ///
    /// # Errors
    /// [`EvalError::MissingImage`] or [`EvalError::ItemId`].
    fn check(&self, _item_id: &str) -> Result<(), EvalError> {
        Ok(())
    }
}

impl<F: Fn(&str) -> Result<RgbImage, EvalError>> ImageSource for F {
    fn load(&self, item_id: &str) -> Result<RgbImage, EvalError> {
        self(item_id)
    }
}

/// A folder with one `<item_id>.png` for each item. Transparency is dropped, grey becomes RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    path: PathBuf,
}

impl ImageFolder {
    /// The images in the folder `path`, which is looked at only when they are asked for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the image of an item is.
    ///
    /// # Errors
    /// [`EvalError::ItemId`] for an id that is no plain file name and could lead out of the folder.
    pub fn image_path(&self, item_id: &str) -> Result<PathBuf, EvalError> {
        if item_id.is_empty()
            || item_id.starts_with('.')
            || item_id.contains(['/', '\\', ':', '\0'])
        {
            return Err(EvalError::ItemId {
                item: item_id.to_owned(),
            });
        }
        Ok(self.path.join(format!("{item_id}.png")))
    }
}

impl ImageSource for ImageFolder {
    fn load(&self, item_id: &str) -> Result<RgbImage, EvalError> {
        let path = self.image_path(item_id)?;
        match image::open(&path) {
            Ok(image) => Ok(image.into_rgb8()),
            Err(ImageError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(EvalError::MissingImage {
                    item: item_id.to_owned(),
                    path,
                })
            }
            Err(source) => Err(EvalError::Image {
                item: item_id.to_owned(),
                path,
                source,
            }),
        }
    }

    fn check(&self, item_id: &str) -> Result<(), EvalError> {
        let path = self.image_path(item_id)?;
        if path.is_file() {
            return Ok(());
        }
        Err(EvalError::MissingImage {
            item: item_id.to_owned(),
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_png_and_names_what_is_missing_or_broken() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ImageFolder::new(dir.path());
        let picture = RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]));
        picture.save(dir.path().join("a_1.png")).unwrap();
        std::fs::write(dir.path().join("a_2.png"), b"no picture").unwrap();
        folder.check("a_1").unwrap();
        assert_eq!(folder.load("a_1").unwrap(), picture);
        let error = folder.load("a_2").unwrap_err();
        assert!(matches!(error, EvalError::Image { .. }), "{error}");
        assert!(error.to_string().contains("a_2.png"), "{error}");
        for error in [
            folder.load("a_3").unwrap_err(),
            folder.check("a_3").unwrap_err(),
        ] {
            assert!(matches!(error, EvalError::MissingImage { .. }), "{error}");
            assert!(
                error.to_string().starts_with("item a_3 has no image: "),
                "{error}"
            );
            assert!(error.to_string().contains("a_3.png"), "{error}");
        }
    }

    #[test]
    fn an_id_cannot_lead_out_of_the_folder() {
        let folder = ImageFolder::new("images");
        for id in [
            "",
            "..",
            "../a",
            "a/../../b",
            "/etc/a",
            "a\\b",
            "C:a",
            ".hidden",
        ] {
            assert!(
                matches!(folder.load(id), Err(EvalError::ItemId { .. })),
                "{id:?}"
            );
        }
    }
}
