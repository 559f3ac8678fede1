//! A VAE that is read instead of a checkpoint's own, such as SDXL's for `f16` or a later fine-tune.

use std::path::{Path, PathBuf};

use super::Located;
use super::stored::Stored;
use crate::DiffusionError;
use crate::config::read_json;
use crate::models::AutoencoderKLConfig;
use crate::presets::Preset;
use crate::single_file::vae_alone;
use crate::weights::{Weights, find};

/// The VAE of a folder or a file. A file has no configuration: it is `given`, or what shapes do not tell is as in `preset`.
pub(super) fn stored(
    path: &Path,
    given: Option<Located<AutoencoderKLConfig>>,
    preset: Preset,
) -> Result<Stored<AutoencoderKLConfig>, DiffusionError> {
    if path.is_file() {
        let weights = Weights::open(path)?;
        let part = vae_alone(&weights, preset)?;
        let (config, config_path) = given.unwrap_or((part.config, path.to_owned()));
        return Ok(Stored {
            config,
            weights: part.weights,
            config_path,
        });
    }
    let folder = folder(path);
    let config_path = folder.join("config.json");
    Ok(Stored {
        config: read_json(&config_path)?,
        weights: Weights::open(find(&folder, None)?.path)?,
        config_path,
    })
}

/// The files with its values.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, DiffusionError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    Ok(find(&folder(path), None)?.files)
}

/// The VAE's folder: the one that is named, or that of a pipeline.
fn folder(path: &Path) -> PathBuf {
    let inner = path.join("vae");
    if inner.is_dir() {
        inner
    } else {
        path.to_owned()
    }
}
