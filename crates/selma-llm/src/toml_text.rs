//! Reading TOML with the line of what is wrong.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::LlmError;

/// Reads a value from TOML; `path` is what errors call the source.
///
/// # Errors
/// [`LlmError::SkillSyntax`] with the line of the first thing that is wrong.
pub(crate) fn parse_toml<T: DeserializeOwned>(toml: &str, path: &Path) -> Result<T, LlmError> {
    // Editors on Windows put the mark in front.
    let toml = toml.trim_start_matches('\u{feff}');
    toml::from_str(toml).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = toml.as_bytes().iter().take(start);
        LlmError::SkillSyntax {
            path: path.to_owned(),
            line: before.filter(|byte| **byte == b'\n').count() + 1,
            reason: error.message().to_owned(),
        }
    })
}
