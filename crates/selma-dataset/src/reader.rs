//! Reading a dataset, strictly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image::RgbImage;
use selma_durable::DurableError;

use crate::picture::{check_file, sha256};
use crate::row::{NumberedSample, TEXT, csv_rows, jsonl_rows};
use crate::skips::Skips;
use crate::source::Pictures;
use crate::{DatasetError, JOURNAL_FILE, METADATA_CSV, METADATA_FILE, Problem, Sample};

/// A folder of images and texts, in the order of its `metadata.jsonl`.
#[derive(Debug, Clone)]
pub struct Dataset {
    root: PathBuf,
    samples: Vec<Sample>,
}

impl Dataset {
    /// Opens the dataset in the folder `root`. Any ImageFolder with a `metadata.jsonl` that has the columns `file_name`
    /// and `text` will do. [`open_any`](crate::open_any) opens other layouts and captions in other columns, and looks closer.
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
        let bytes = read_metadata(&root, &path)?;
        let samples = jsonl_rows(&path, &bytes, TEXT)
            .map(|row| Ok(is_there(&root, &path, row?)?.1))
            .collect::<Result<_, DatasetError>>()?;
        Ok(Self { root, samples })
    }

    /// Opens a dataset with the metadata `file`, in which captions are in the column `caption`, and sees that each picture
    /// looks like one and has a caption.
    pub(crate) fn open_checked(
        root: PathBuf,
        file: &str,
        caption: Option<&str>,
        skips: &mut Skips,
    ) -> Result<Self, DatasetError> {
        let path = root.join(file);
        let bytes = read_metadata(&root, &path)?;
        let caption = caption.unwrap_or(TEXT);
        let rows: Box<dyn Iterator<Item = _>> = if file == METADATA_CSV {
            Box::new(csv_rows(&path, &bytes, caption)?)
        } else {
            Box::new(jsonl_rows(&path, &bytes, caption))
        };
        let mut samples = Vec::new();
        for row in rows {
            let usable = row.and_then(|row| {
                let (line, sample) = is_there(&root, &path, row)?;
                if sample.text.trim().is_empty() {
                    return Err(DatasetError::Entry {
                        path: root.join(&sample.file_name),
                        problem: Problem::EmptyCaption,
                        expected: format!("a text as `{caption}` in line {line} of {file}"),
                        found: format!("{:?}", sample.text),
                    });
                }
                check_file(&root.join(&sample.file_name))?;
                Ok(sample)
            });
            samples.extend(skips.take(usable)?);
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
    /// Those of [`bytes`](Self::bytes), and [`DatasetError::Image`].
    pub fn image(&self, index: usize) -> Result<RgbImage, DatasetError> {
        Pictures::image(self, index)
    }

    /// The file of the image of sample `index`, as it is.
    ///
    /// # Errors
    /// [`DatasetError::Index`], [`DatasetError::Durable`]; [`DatasetError::ImageHash`] if the row has a hash and the file
    /// another.
    pub fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
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
        Ok(bytes)
    }
}

impl<'a> IntoIterator for &'a Dataset {
    type Item = &'a Sample;
    type IntoIter = std::slice::Iter<'a, Sample>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn read_metadata(root: &Path, path: &Path) -> Result<Vec<u8>, DatasetError> {
    match fs::read(path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && root.join(JOURNAL_FILE).exists() =>
        {
            Err(DatasetError::Unfinished { path: root.into() })
        }
        other => Ok(other.map_err(DurableError::io("read", path))?),
    }
}

/// Refuses a row whose image is not there.
fn is_there(
    root: &Path,
    path: &Path,
    (line, sample): NumberedSample,
) -> Result<NumberedSample, DatasetError> {
    let image = root.join(&sample.file_name);
    if image.is_file() {
        return Ok((line, sample));
    }
    Err(DatasetError::MissingImage {
        path: path.into(),
        line,
        image,
    })
}
