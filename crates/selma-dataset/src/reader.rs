//! Reading a dataset, strictly.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use selma_durable::DurableError;
use sha2::{Digest, Sha256};

use crate::row::parse_rows;
use crate::{DatasetError, JOURNAL_FILE, METADATA_FILE, Sample};

/// A folder of images and texts, in the order of its `metadata.jsonl`.
#[derive(Debug, Clone)]
pub struct Dataset {
    root: PathBuf,
    samples: Vec<Sample>,
}

impl Dataset {
    /// Opens the dataset in the folder `root`. Any ImageFolder with a `metadata.jsonl` that has the columns `file_name`
    /// and `text` will do.
    ///
    /// # Errors
    /// - [`DatasetError::Durable`] if `metadata.jsonl` cannot be read, [`DatasetError::Unfinished`] if there is a writer's
    ///   journal in its place;
    /// - [`DatasetError::Durable`], [`DatasetError::Field`], [`DatasetError::DuplicateRow`] for a row that is malformed,
    ///   names a place outside the folder, or repeats another;
    /// - [`DatasetError::MissingImage`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DatasetError> {
        let root = root.into();
        let path = root.join(METADATA_FILE);
        let bytes = match fs::read(&path) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && root.join(JOURNAL_FILE).exists() =>
            {
                return Err(DatasetError::Unfinished { path: root });
            }
            other => other.map_err(DurableError::io("read", &path))?,
        };
        let samples = parse_rows(&path, &bytes)?;
        for (line, sample) in (1..).zip(&samples) {
            let image = root.join(&sample.file_name);
            if !image.is_file() {
                return Err(DatasetError::MissingImage { path, line, image });
            }
        }
        Ok(Self { root, samples })
    }

    /// The dataset's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The sample with this number, counted from 0.
    pub fn get(&self, index: usize) -> Option<&Sample> {
        self.samples.get(index)
    }

    /// The samples in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Sample> {
        self.samples.iter()
    }

    /// Decodes the image of sample `index`: PNG, JPEG or WebP, turned upright as its EXIF data says, as 8-bit RGB.
    /// Transparency is dropped, as PIL's `convert("RGB")` does.
    ///
    /// # Errors
    /// [`DatasetError::Index`], [`DatasetError::Durable`], [`DatasetError::Image`]; [`DatasetError::ImageHash`] if the row has
    /// a hash and the file another.
    pub fn image(&self, index: usize) -> Result<RgbImage, DatasetError> {
        let Some(sample) = self.get(index) else {
            return Err(DatasetError::Index {
                path: self.root.clone(),
                index,
                len: self.len(),
            });
        };
        let path = self.root.join(&sample.file_name);
        let bytes = fs::read(&path).map_err(DurableError::io("read", &path))?;
        if let Some(expected) = &sample.image_sha256 {
            let found = sha256(&bytes);
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(DatasetError::ImageHash {
                    path,
                    expected: expected.clone(),
                    found,
                });
            }
        }
        decode(&bytes).map_err(|source| DatasetError::Image {
            action: "decode",
            path,
            source,
        })
    }
}

impl<'a> IntoIterator for &'a Dataset {
    type Item = &'a Sample;
    type IntoIter = std::slice::Iter<'a, Sample>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn decode(bytes: &[u8]) -> image::ImageResult<RgbImage> {
    let mut decoder = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()?
        .into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
