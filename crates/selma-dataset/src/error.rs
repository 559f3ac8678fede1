//! The one error type of the crate.

use std::fmt;
use std::path::PathBuf;

use selma_durable::DurableError;

use crate::{METADATA_CSV, METADATA_FILE, Size};

/// What can go wrong with files, journals and datasets. Each text holds the path and the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file, folder or journal cannot be read or written, or a line is not JSON.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A field of a row is missing or has the wrong type or value.
    #[error("{}, line {line}: field `{field}`: expected {expected}, found {found}", path.display())]
    Field {
        /// The file: metadata, scores or pairs.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// The field.
        field: String,
        /// What would have been right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Two rows name the same image.
    #[error("{}, line {line}: `{file_name}` is already named in line {first}", path.display())]
    DuplicateRow {
        /// The metadata file.
        path: PathBuf,
        /// The second row, counted from 1.
        line: usize,
        /// The first row, counted from 1.
        first: usize,
        /// The image.
        file_name: String,
    },
    /// A row names an image that is not there.
    #[error("{}, line {line}: there is no image {}", path.display(), image.display())]
    MissingImage {
        /// The metadata file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Where the image should be.
        image: PathBuf,
    },
    /// A folder holds a dataset that a writer has begun and not finished.
    #[error("the dataset {} is unfinished: it has a journal and no metadata", path.display())]
    Unfinished {
        /// The dataset's folder.
        path: PathBuf,
    },
    /// A name given to the writer cannot be used.
    #[error("cannot add `{file_name}` to {}: expected {expected}", path.display())]
    FileName {
        /// The dataset's folder.
        path: PathBuf,
        /// The name.
        file_name: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A sample of this name is already there.
    #[error("cannot add `{file_name}` to {}: it is already there", path.display())]
    Duplicate {
        /// The dataset's folder.
        path: PathBuf,
        /// The name.
        file_name: String,
    },
    /// A number in the provenance is NaN or infinite, which JSON cannot hold.
    #[error("cannot add `{file_name}` to {}: `{field}` is {found}, expected a finite number", path.display())]
    NotFinite {
        /// The dataset's folder.
        path: PathBuf,
        /// The sample.
        file_name: String,
        /// The field of the provenance.
        field: &'static str,
        /// Its value.
        found: f64,
    },
    /// An image cannot be encoded or decoded.
    #[error("cannot {action} the image {}: {source}", path.display())]
    Image {
        /// What was tried: `encode` or `decode`.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// The cause.
        source: image::ImageError,
    },
    /// An image is not the one that was written.
    #[error("the image {} has changed: expected SHA-256 {expected}, found {found}", path.display())]
    ImageHash {
        /// The image.
        path: PathBuf,
        /// The hash in the metadata.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// There is no sample with this number.
    #[error("sample {index} of {} does not exist: there are {len}", path.display())]
    Index {
        /// The dataset's folder.
        path: PathBuf,
        /// The number asked for.
        index: usize,
        /// The number of samples.
        len: usize,
    },
    /// `metadata.csv` is not CSV, or not UTF-8.
    #[error("cannot read {}: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The cause, with record and line.
        source: csv::Error,
    },
    /// A picture or a caption of a dataset cannot be used.
    #[error("{}: {problem}: expected {expected}, found {found}", path.display())]
    Entry {
        /// The file; a member of an archive as if the archive were a folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// There is no dataset in a place.
    #[error(
        "{} is no dataset: expected {METADATA_FILE}, {METADATA_CSV}, archives *.tar, or pictures with captions beside them, found {found}",
        path.display()
    )]
    NotADataset {
        /// The folder or file.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// A folder can be read in two ways.
    #[error("which dataset is meant in {} is not clear: found {first} and {second}", path.display())]
    SeveralLayouts {
        /// The folder.
        path: PathBuf,
        /// What would be one dataset.
        first: String,
        /// What would be another.
        second: String,
    },
    /// A picture has no score that is needed.
    #[error("`{name}` in {} has no score by `{scorer}`: found {found}", path.display())]
    NoScore {
        /// The dataset.
        path: PathBuf,
        /// The picture.
        name: String,
        /// Who should have scored it.
        scorer: String,
        /// Which scores there are.
        found: String,
    },
    /// A setting makes no sense.
    #[error("`{field}`: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        field: String,
        /// What would have been right.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A picture has a size that cannot be used. Who knows its file names it.
    #[error("picture of {found} pixels: expected {expected}")]
    Picture {
        /// What would have been right.
        expected: String,
        /// Its size.
        found: Size,
    },
}

/// What is wrong with a picture or a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// A picture has no caption.
    NoCaption,
    /// A caption has no picture.
    NoPicture,
    /// A caption is nothing but white space.
    EmptyCaption,
    /// A caption is not UTF-8, or not JSON of the right form.
    BadCaption,
    /// A file with the name of a picture is none.
    BadPicture,
    /// There are two pictures or two captions where one is due.
    Duplicate,
    /// A name cannot be used.
    BadName,
    /// An archive is damaged.
    Torn,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCaption => "no caption",
            Self::NoPicture => "no picture",
            Self::EmptyCaption => "empty caption",
            Self::BadCaption => "bad caption",
            Self::BadPicture => "bad picture",
            Self::Duplicate => "twice",
            Self::BadName => "bad name",
            Self::Torn => "torn archive",
        })
    }
}
