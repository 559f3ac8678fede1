//! Opening a dataset in any layout, which its content tells.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use selma_durable::DurableError;
use serde::{Deserialize, Serialize};

use crate::captioned_folder::CaptionedFolder;
use crate::picture::is_picture;
use crate::skips::Skips;
use crate::web_dataset::WebDataset;
use crate::{Dataset, DatasetError, JOURNAL_FILE, METADATA_CSV, METADATA_FILE, Pictures};

/// How a dataset is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// Where the captions are, if not in the usual place: the column of the metadata, the ending of the caption files, or the
    /// ending or the JSON key of an archive's members.
    pub caption: Option<String>,
    /// Whether pictures and captions that cannot be used are left out and listed, instead of the whole dataset refused.
    pub skip_unusable: bool,
}

/// How the pictures and captions of a dataset lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// An ImageFolder with `metadata.jsonl` or `metadata.csv`.
    ImageFolder,
    /// A caption file beside each picture, as kohya's scripts read it.
    CaptionFiles,
    /// Tar archives of the library `webdataset`.
    WebDataset,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImageFolder => "ImageFolder",
            Self::CaptionFiles => "caption files",
            Self::WebDataset => "WebDataset",
        })
    }
}

/// A dataset that [`open_any`] found.
#[derive(Debug)]
pub struct Opened {
    /// The pictures with their captions.
    pub pictures: Box<dyn Pictures>,
    /// How they lie on the disk.
    pub layout: Layout,
    /// What was left out, and why; empty unless [`OpenOptions::skip_unusable`].
    pub skipped: Vec<DatasetError>,
}

/// Opens a dataset: a folder, a tar archive, or a file `metadata.jsonl` or `metadata.csv`. The layout is the first of these:
///
/// - `metadata.jsonl` or `metadata.csv`, of which `file_name` and `text` are the columns: an ImageFolder of Hugging Face
///   `datasets`. Only what is in the metadata counts.
/// - `*.tar`: shards of a WebDataset, in the order of their names. Members are of one sample if their names are equal up to the
///   first dot: a picture, and `.txt`, or `.json` with `text` or `caption`.
/// - Pictures with a file `.txt` or `.caption` of the same stem beside each, in the folder and those in it. Pictures in a folder
///   `N_name` are repeated `N` times an epoch, and if none there has a caption file, `name` is their caption, as in kohya's
///   scripts; `2024_trip` is such a folder, too. Unlike there, captions may have several lines.
///
/// Pictures are `.jpg`, `.jpeg`, `.png` and `.webp`, in any case. Whether a picture is one is looked for in its first bytes;
/// whether it is whole shows when it is read. Names that begin with a dot are passed over.
///
/// # Errors
/// - [`DatasetError::NotADataset`], [`DatasetError::SeveralLayouts`], [`DatasetError::Unfinished`];
/// - [`DatasetError::Durable`] or [`DatasetError::Csv`] if the folder or its metadata cannot be read;
/// - for what cannot be used, unless it is skipped: [`DatasetError::Entry`], and with metadata [`DatasetError::Field`],
///   [`DatasetError::DuplicateRow`] and [`DatasetError::MissingImage`].
pub fn open_any(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Opened, DatasetError> {
    let mut skips = Skips::new(options.skip_unusable);
    let caption = options.caption.as_deref();
    let (layout, pictures): (Layout, Box<dyn Pictures>) = match recognise(path.as_ref())? {
        Found::Metadata(root, file) => {
            let dataset = Dataset::open_checked(root, file, caption, &mut skips)?;
            (Layout::ImageFolder, Box::new(dataset))
        }
        Found::Shards(root, shards) => {
            let dataset = WebDataset::open(root, &shards, caption, &mut skips)?;
            (Layout::WebDataset, Box::new(dataset))
        }
        Found::Folder(root, found) => {
            let ending = caption.map(|ending| ending.trim_start_matches('.').to_lowercase());
            let folder = CaptionedFolder::open(root, ending.as_deref(), &mut skips)?;
            if folder.is_empty() && !skips.has_any() {
                let path = folder.root().into();
                return Err(DatasetError::NotADataset { path, found });
            }
            (Layout::CaptionFiles, Box::new(folder))
        }
    };
    Ok(Opened {
        pictures,
        layout,
        skipped: skips.into_errors(),
    })
}

/// What may be a dataset.
enum Found {
    /// A folder and its metadata file.
    Metadata(PathBuf, &'static str),
    /// A folder and the names of its archives.
    Shards(PathBuf, Vec<String>),
    /// A folder of something else, and what is in it in words.
    Folder(PathBuf, String),
}

fn recognise(path: &Path) -> Result<Found, DatasetError> {
    let is_folder = fs::metadata(path)
        .map_err(DurableError::io("read", path))?
        .is_dir();
    if !is_folder {
        return recognise_file(path);
    }
    let read_error = || DurableError::io("read", path);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(read_error())? {
        let name = entry.map_err(read_error())?.file_name();
        names.extend(name.to_str().map(str::to_owned));
    }
    names.sort_unstable();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    match (has(METADATA_FILE), has(METADATA_CSV)) {
        (true, true) => {
            return Err(DatasetError::SeveralLayouts {
                path: path.into(),
                first: METADATA_FILE.to_owned(),
                second: METADATA_CSV.to_owned(),
            });
        }
        (true, false) => return Ok(Found::Metadata(path.into(), METADATA_FILE)),
        (false, true) => return Ok(Found::Metadata(path.into(), METADATA_CSV)),
        (false, false) if has(JOURNAL_FILE) => {
            return Err(DatasetError::Unfinished { path: path.into() });
        }
        (false, false) => {}
    }
    let mut visible = names.iter().filter(|name| !name.starts_with('.'));
    let found = match (visible.next(), visible.count()) {
        (None, _) => "nothing".to_owned(),
        (Some(first), 0) => format!("`{first}`"),
        (Some(first), more) => format!("`{first}` and {more} more"),
    };
    let is_shard = |name: &&String| name.to_lowercase().ends_with(".tar") && !name.starts_with('.');
    let shards: Vec<String> = names.iter().filter(is_shard).cloned().collect();
    let Some(shard) = shards.first() else {
        return Ok(Found::Folder(path.into(), found));
    };
    if let Some(picture) = names.iter().find(|name| is_picture(name)) {
        return Err(DatasetError::SeveralLayouts {
            path: path.into(),
            first: format!("archives such as `{shard}`"),
            second: format!("pictures such as `{picture}`"),
        });
    }
    Ok(Found::Shards(path.into(), shards))
}

fn recognise_file(path: &Path) -> Result<Found, DatasetError> {
    let no_dataset = |found: &str| DatasetError::NotADataset {
        path: path.into(),
        found: found.to_owned(),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        return Err(no_dataset("a file whose name is not UTF-8"));
    };
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    for file in [METADATA_FILE, METADATA_CSV] {
        if name == file {
            return Ok(Found::Metadata(folder, file));
        }
    }
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut start))
        .map_err(DurableError::io("read", path))?;
    if name.to_lowercase().ends_with(".tar") || start.get(257..262) == Some(b"ustar") {
        return Ok(Found::Shards(folder, vec![name.to_owned()]));
    }
    Err(no_dataset(if start.starts_with(&[0x1f, 0x8b]) {
        "a file compressed with gzip"
    } else {
        "a file of another kind"
    }))
}
