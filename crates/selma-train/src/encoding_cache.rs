//! Encoded pictures and texts on disk.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use selma_diffusion::StableDiffusion;
use selma_durable::{DurableError, create_folder, write_unsynced};

use crate::TrainError;
use crate::encoded::{Encoded, Kind};

/// What a file is named by: a hash of the pixels, or of the tokens.
pub(crate) type Key = [u8; 32];

/// A folder that keeps what VAE and text encoders made, for later trainings and for others at the same time.
///
/// A picture's file is found by the pixels that are shown, so that other settings of the geometry have other files; a text's by its tokens. Both lie in a folder of the encoder's own
/// ([`image_encoder_sha256`](StableDiffusion::image_encoder_sha256), [`text_encoders_sha256`](StableDiffusion::text_encoders_sha256)): another UNet changes nothing, another VAE, number type or kind of
/// device has files of its own. Files appear whole or not at all. Of pictures there are the moments of the latents, so that these are still drawn anew each time.
///
/// A training set that has a cache reads its samples when they are asked for, and keeps none in memory.
#[derive(Debug, Clone)]
pub struct EncodingCache {
    pictures: PathBuf,
    texts: PathBuf,
}

impl EncodingCache {
    /// The part of a folder that is for a pipeline. The folder is made if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or the device does not give the weights that are hashed.
    pub fn open(folder: &Path, pipeline: &StableDiffusion) -> Result<Self, TrainError> {
        let part = |name: &str, hash: [u8; 32]| {
            // Half of a hash tells encoders apart as well, and leaves room in a path.
            let (half, _) = hash.split_at(16);
            let part = folder.join(name).join(hex::encode(half));
            create_folder(&part)?;
            Ok::<_, TrainError>(part)
        };
        Ok(Self {
            pictures: part("latents", pipeline.image_encoder_sha256()?)?,
            texts: part("texts", pipeline.text_encoders_sha256()?)?,
        })
    }

    /// The file of a picture or a text, whether or not it is there.
    pub(crate) fn file(&self, kind: Kind, key: &Key) -> PathBuf {
        let folder = match kind {
            Kind::Picture => &self.pictures,
            Kind::Text => &self.texts,
        };
        folder.join(format!("{}.safetensors", hex::encode(key)))
    }
}

/// What a lookup finds.
pub(crate) enum Found {
    Whole(Encoded),
    Damaged,
    Nothing,
}

/// Looks for a file.
pub(crate) fn look(path: &Path, kind: Kind) -> Result<Found, TrainError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Encoded::from_bytes(&bytes, kind).map_or(Found::Damaged, Found::Whole)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(DurableError::io("read", path)(error).into()),
    }
}

/// Reads a file that was there when the training began.
pub(crate) fn read(path: &Path, kind: Kind) -> Result<Encoded, TrainError> {
    match look(path, kind)? {
        Found::Whole(encoded) => Ok(encoded),
        Found::Damaged => Err(lost(path, "damaged")),
        Found::Nothing => Err(lost(path, "gone")),
    }
}

/// Writes a file. It is not waited for until it is on the disk: what a loss of power spoils is made again.
pub(crate) fn write(path: &Path, kind: Kind, encoded: &Encoded) -> Result<(), TrainError> {
    let bytes = encoded.to_bytes(kind);
    let bytes = bytes.map_err(|error| lost(path, &error.to_string()))?;
    Ok(write_unsynced(path, &bytes)?)
}

fn lost(path: &Path, what: &str) -> TrainError {
    TrainError::Cache {
        path: path.to_owned(),
        reason: what.to_owned(),
    }
}
