//! What `--model` and the `model` of a recipe name: something on the disk, or a model on the Hugging Face Hub.

use std::path::{Path, PathBuf};

/// Where the model lies. What exists on the disk is meant as it is; otherwise `OWNER/NAME`, with `@REVISION` and `:FILE` behind it if
/// need be, is found in the cache, or downloaded.
///
/// # Errors
///
/// If there is no such file or folder, and no such model can be had; the error says what can be done.
pub fn locate(model: &Path, variant: Option<&str>) -> anyhow::Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_owned());
    }
    elsewhere(model, variant)
}

#[cfg(feature = "hub")]
use crate::hub::locate as elsewhere;

#[cfg(not(feature = "hub"))]
fn elsewhere(model: &Path, _variant: Option<&str>) -> anyhow::Result<PathBuf> {
    anyhow::bail!(
        "{} does not exist; a program built with `--features hub` also takes the id of a model to download",
        model.display()
    )
}
