//! Writing a dataset so that it can be interrupted at any instant.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use selma_durable::{
    DurableError, Journal, atomic_write, create_folder, remove_temporaries, sync_files, to_jsonl,
    write_unsynced,
};
use serde_json::Map;

use crate::picture::sha256;
use crate::row::{is_plain_path, parse_rows};
use crate::{DatasetError, JOURNAL_FILE, METADATA_FILE, Provenance, Sample};

/// Writes a dataset one sample at a time; killed at any instant, it continues where it was.
///
/// A sample is an image, a text file of the same stem, and a line in `journal.jsonl`, written in this order; the line is
/// on the disk before the sample counts. [`finish`](Self::finish) waits until the images and texts are on the disk too,
/// and turns the journal into `metadata.jsonl`. Should the power fail before that, [`open`](Self::open) notices which of
/// them were lost. The finished folder has the same bytes whatever the
/// order of the samples and however often the work was interrupted.
#[derive(Debug)]
pub struct DatasetWriter {
    root: PathBuf,
    samples: BTreeMap<String, Sample>,
    journal: Journal<Sample>,
    /// Whether the journal has lines, whose files may not be on the disk yet.
    unsynced: bool,
}

impl DatasetWriter {
    /// Begins a dataset in the folder `root`, or continues one, finished or not.
    ///
    /// A torn last line of the journal is cut off. A sample whose image is missing or has changed, or whose text file is
    /// not its text, counts as not written.
    ///
    /// # Errors
    /// - [`DatasetError::Durable`] if the folder cannot be created, read or written, or another writer has it open;
    /// - [`DatasetError::Durable`], [`DatasetError::Field`], [`DatasetError::DuplicateRow`] if the journal or the metadata
    ///   is damaged otherwise than by a crash.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DatasetError> {
        let root = root.into();
        create_folder(&root)?;
        let (journal, journaled) = Journal::<Sample>::open(root.join(JOURNAL_FILE))?;
        remove_temporaries(&root)?;
        let metadata = root.join(METADATA_FILE);
        let finished = match fs::read(&metadata) {
            Ok(bytes) => parse_rows(&metadata, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(DurableError::io("read", &metadata)(error).into()),
        };
        for (line, sample) in (1..).zip(&journaled) {
            if check_file_name(&root, &sample.file_name).is_err() {
                return Err(DatasetError::Field {
                    path: journal.path().into(),
                    line,
                    field: "file_name".to_owned(),
                    expected: PNG_PATH,
                    found: format!("`{}`", sample.file_name),
                });
            }
        }
        let unsynced = !journaled.is_empty();
        // A sample that was written again has several lines; the last one counts.
        let mut samples = BTreeMap::new();
        for sample in finished.into_iter().chain(journaled) {
            samples.insert(sample.file_name.clone(), sample);
        }
        samples.retain(|_, sample| is_intact(&root, sample));
        Ok(Self {
            root,
            samples,
            journal,
            unsynced,
        })
    }

    /// Whether the sample is there, whole.
    pub fn contains(&self, file_name: &str) -> bool {
        self.samples.contains_key(file_name)
    }

    /// The samples that are there, in the order of their file names' bytes.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.values()
    }

    /// Number of samples that are there.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether no sample is there.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The dataset's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes one sample; it is there from now on if the process is killed.
    ///
    /// `file_name` is a plain relative path that ends in `.png`; its folders are created.
    ///
    /// # Errors
    /// [`DatasetError::FileName`], [`DatasetError::Duplicate`] if it is there, [`DatasetError::NotFinite`],
    /// [`DatasetError::Image`], [`DatasetError::Durable`]. The sample then does not count as written.
    pub fn push(
        &mut self,
        file_name: &str,
        image: &RgbImage,
        text: &str,
        provenance: Provenance,
    ) -> Result<(), DatasetError> {
        check_file_name(&self.root, file_name)?;
        if self.contains(file_name) {
            return Err(DatasetError::Duplicate {
                path: self.root.clone(),
                file_name: file_name.to_owned(),
            });
        }
        if !provenance.guidance.is_finite() {
            return Err(DatasetError::NotFinite {
                path: self.root.clone(),
                file_name: file_name.to_owned(),
                field: "guidance",
                found: provenance.guidance,
            });
        }
        let path = self.root.join(file_name);
        let png = encode(image).map_err(|source| DatasetError::Image {
            action: "encode",
            path: path.clone(),
            source,
        })?;
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        write_unsynced(&path, &png)?;
        write_unsynced(&path.with_extension("txt"), text.as_bytes())?;
        let sample = Sample {
            file_name: file_name.to_owned(),
            text: text.to_owned(),
            image_sha256: Some(sha256(&png)),
            provenance: Some(provenance),
            extra: Map::new(),
        };
        self.unsynced = true;
        self.journal.append(&sample)?;
        self.samples.insert(sample.file_name.clone(), sample);
        Ok(())
    }

    /// Syncs the files and writes `metadata.jsonl`, with the samples in the order of their file names' bytes, and removes the journal.
    ///
    /// # Errors
    /// [`DatasetError::Durable`]; nothing is lost then.
    pub fn finish(self) -> Result<(), DatasetError> {
        let path = self.root.join(METADATA_FILE);
        let bytes = to_jsonl(&path, self.samples.values())?;
        if self.unsynced {
            self.sync()?;
        }
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            atomic_write(&path, &bytes)?;
        }
        Ok(self.journal.remove()?)
    }

    /// Gives the dataset up without a change: a journal that [`open`](Self::open) made, and that has no lines, is removed.
    ///
    /// # Errors
    /// [`DatasetError::Durable`].
    pub fn leave(self) -> Result<(), DatasetError> {
        if !self.unsynced {
            self.journal.remove()?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DatasetError> {
        let written = self
            .samples
            .values()
            .filter(|sample| sample.image_sha256.is_some());
        let files: Vec<PathBuf> = written
            .map(|sample| self.root.join(&sample.file_name))
            .flat_map(|image| [image.with_extension("txt"), image])
            .collect();
        Ok(sync_files(files.iter().map(PathBuf::as_path))?)
    }
}

const PNG_PATH: &str = "a plain relative path that ends in `.png`, with `/` between its parts, none of which begins with a dot";

/// Loaders pass over names that begin with a dot, and this crate's temporary files are among them.
fn check_file_name(root: &Path, file_name: &str) -> Result<(), DatasetError> {
    let hidden = file_name.split('/').any(|part| part.starts_with('.'));
    if is_plain_path(file_name) && !hidden && file_name.ends_with(".png") {
        return Ok(());
    }
    Err(DatasetError::FileName {
        path: root.into(),
        file_name: file_name.to_owned(),
        expected: PNG_PATH,
    })
}

/// Rows without a hash come from elsewhere, and only their image is asked for.
fn is_intact(root: &Path, sample: &Sample) -> bool {
    let path = root.join(&sample.file_name);
    match &sample.image_sha256 {
        None => path.is_file(),
        Some(hash) => {
            fs::read(&path).is_ok_and(|bytes| sha256(&bytes) == *hash)
                && fs::read(path.with_extension("txt"))
                    .is_ok_and(|bytes| bytes == sample.text.as_bytes())
        }
    }
}

/// PNG with fixed settings and no time stamp: equal images give equal bytes.
fn encode(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(
            image.as_raw(),
            image.width(),
            image.height(),
            ExtendedColorType::Rgb8,
        )?;
    Ok(bytes)
}
