//! What a training, a scorer or a selection asks of a dataset, in whatever layout it is.

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::picture::decode;
use crate::{Dataset, DatasetError};

/// Pictures with captions, numbered from 0. Captions are in memory; pictures are read when they are asked for, from any number
/// of threads.
pub trait Pictures: Debug + Send + Sync {
    /// The folder that the pictures lie in.
    fn root(&self) -> &Path;

    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are no pictures.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of a picture: its path in [`root`](Self::root), with `/` between its parts. No two have the same. The name of a
    /// picture in an archive is that of the archive, `/`, and its name there.
    fn name(&self, index: usize) -> Option<&str>;

    /// Caption of a picture.
    fn text(&self, index: usize) -> Option<&str>;

    /// How many times an epoch shows a picture; once, unless it is in a folder `N_name` of kohya's layout.
    fn repeats(&self, _index: usize) -> usize {
        1
    }

    /// SHA-256 of the picture's file in hexadecimal, if the dataset records it.
    fn image_sha256(&self, _index: usize) -> Option<&str> {
        None
    }

    /// The picture's file as it is stored.
    ///
    /// # Errors
    /// [`DatasetError::Index`], [`DatasetError::Durable`]; [`DatasetError::ImageHash`] if the dataset records another hash.
    fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError>;

    /// The picture: PNG, JPEG or WebP, turned upright as its EXIF data says, as 8-bit RGB. Transparency is dropped, as
    /// PIL's `convert("RGB")` does.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes), and [`DatasetError::Image`].
    fn image(&self, index: usize) -> Result<RgbImage, DatasetError> {
        decode(&path_of(self, index)?, &self.bytes(index)?)
    }
}

impl Pictures for Dataset {
    fn root(&self) -> &Path {
        self.root()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn name(&self, index: usize) -> Option<&str> {
        self.get(index).map(|sample| sample.file_name.as_str())
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.get(index).map(|sample| sample.text.as_str())
    }

    fn image_sha256(&self, index: usize) -> Option<&str> {
        self.get(index)?.image_sha256.as_deref()
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
        self.bytes(index)
    }
}

/// Where a picture is; that of a member of an archive as if the archive were a folder.
pub(crate) fn path_of<P: Pictures + ?Sized>(
    pictures: &P,
    index: usize,
) -> Result<PathBuf, DatasetError> {
    Ok(pictures.root().join(name_of(pictures, index)?))
}

/// Name of a picture that should be there.
pub(crate) fn name_of<P: Pictures + ?Sized>(
    pictures: &P,
    index: usize,
) -> Result<&str, DatasetError> {
    pictures.name(index).ok_or_else(|| DatasetError::Index {
        path: pictures.root().into(),
        index,
        len: pictures.len(),
    })
}

/// Numbers of pictures by their names.
pub(crate) fn by_name(pictures: &dyn Pictures) -> HashMap<&str, usize> {
    (0..pictures.len())
        .filter_map(|index| Some((pictures.name(index)?, index)))
        .collect()
}

/// The prompts in the order in which they first occur, each with the numbers of its pictures. Pictures are of one prompt if
/// their captions are equal.
pub(crate) fn by_prompt(pictures: &dyn Pictures) -> Vec<Vec<usize>> {
    let mut prompts: Vec<Vec<usize>> = Vec::new();
    let mut places = HashMap::new();
    for index in 0..pictures.len() {
        let place = *places
            .entry(pictures.text(index))
            .or_insert_with(|| prompts.len());
        match prompts.get_mut(place) {
            Some(numbers) => numbers.push(index),
            None => prompts.push(vec![index]),
        }
    }
    prompts
}
