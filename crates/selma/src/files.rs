//! Reading, beginning and removing of files and folders.

use std::path::Path;

use selma_durable::{create_folder, write_json};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SelmaError;

/// Reads a TOML file.
///
/// # Errors
///
/// If the file cannot be read, or has an unknown, missing or mistyped key; the error names file, line and key.
pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, SelmaError> {
    let text = std::fs::read_to_string(path).map_err(|source| SelmaError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| SelmaError::Recipe {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Reads a JSON file that a run has written.
///
/// # Errors
///
/// If the file cannot be read or is not as it was written.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, SelmaError> {
    let text = std::fs::read_to_string(path).map_err(|source| SelmaError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| SelmaError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Makes a folder whose contents follow from a recipe, and keeps the recipe in a file of it; whether that was done before, by the same recipe. `what` the
/// folder is, is for the message.
///
/// # Errors
///
/// If the folder belongs to another recipe, holds other things, or cannot be written.
pub(crate) fn begin_folder<T: PartialEq + Serialize + DeserializeOwned>(
    folder: &Path,
    recipe_file: &Path,
    recipe: &T,
    what: &str,
) -> Result<bool, SelmaError> {
    if recipe_file.is_file() {
        return if read_json::<T>(recipe_file)? == *recipe {
            Ok(true)
        } else {
            Err(SelmaError::OtherRecipe {
                path: folder.to_owned(),
            })
        };
    }
    if std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) {
        return Err(SelmaError::Damaged {
            path: folder.to_owned(),
            reason: format!("the folder is not empty and is no {what}"),
        });
    }
    create_folder(folder)?;
    write_json(recipe_file, recipe)?;
    Ok(false)
}

/// Removes a file if it is there.
///
/// # Errors
///
/// If it cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), SelmaError> {
    gone(path, std::fs::remove_file(path))
}

/// Removes a folder and all that is in it, if it is there.
///
/// # Errors
///
/// If it cannot be removed.
pub(crate) fn remove_folder(path: &Path) -> Result<(), SelmaError> {
    gone(path, std::fs::remove_dir_all(path))
}

fn gone(path: &Path, removed: std::io::Result<()>) -> Result<(), SelmaError> {
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(SelmaError::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
