//! A model's name on the Hub.

use std::fmt;
use std::str::FromStr;

use crate::HubError;

/// The branch that is meant where no revision is given.
pub(crate) const MAIN: &str = "main";

/// `OWNER/NAME`, with `@REVISION` and `:FILE` behind it if need be.
///
/// ```
/// use selma_hub::ModelId;
///
/// let id: ModelId = "stabilityai/sd-turbo@main:sd_turbo.safetensors".parse()?;
/// assert_eq!(id.repository, "stabilityai/sd-turbo");
/// assert_eq!(id.revision(), "main");
/// assert_eq!(id.file.as_deref(), Some("sd_turbo.safetensors"));
/// assert!("models/mini/unet".parse::<ModelId>().is_err());
/// # Ok::<(), selma_hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelId {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit, if one is given.
    pub revision: Option<String>,
    /// A single file of the repository, by its path there, if one is given. Otherwise the id means a folder in diffusers' layout.
    pub file: Option<String>,
}

impl ModelId {
    /// The revision, `main` if none is given.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The commit, if the revision is the whole hash of one: then nothing about it can change.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|text| is_commit(text))
    }
}

impl FromStr for ModelId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = || HubError::Id {
            found: text.to_owned(),
        };
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let (owner, name) = repository.split_once('/').ok_or_else(wrong)?;
        let given = [file, revision].into_iter().flatten();
        if !is_name(owner) || !is_name(name) || !given.into_iter().all(is_relative) {
            return Err(wrong());
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        Ok(())
    }
}

/// What the Hub allows as the name of an owner or a repository. The cache's folders rely on it that there is no `--`.
fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c| text.starts_with(c) || text.ends_with(c);
    (1..=96).contains(&text.len())
        && text.chars().all(letter)
        && !ends('-')
        && !ends('.')
        && !text.contains("--")
        && !text.contains("..")
}

/// Whether a path stays in the folder that it is joined to, on any system.
pub(crate) fn is_relative(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(plain)
        && !path.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
}

/// Whether this is the whole hash of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_id_and_what_is_not() {
        for text in [
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "a/b",
            "a/b@fp16",
            "a/b@refs/pr/3",
            "a/b:folder/model.safetensors",
            "a/b@39593d5650112b4cc580433f6b0435385882d819:v1-5-pruned.ckpt",
        ] {
            assert_eq!(text.parse::<ModelId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "mini",
            "models/mini/unet",
            "./mini",
            "../mini",
            "/a/b",
            "~/models",
            "a/b/",
            "a//b",
            "a/b@",
            "a/b:",
            "a/b:../c",
            "a/b:/etc/passwd",
            "a/b@../../x",
            "a/b:c\\d",
            "a--b/c",
            "a b/c",
            "C:/models",
            "http://a/b",
        ] {
            assert!(text.parse::<ModelId>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_whole_hash_is_a_commit() {
        let id = |revision: &str| format!("a/b@{revision}").parse::<ModelId>().unwrap();
        assert!(id(&"0f".repeat(20)).commit().is_some());
        assert!(id("0f0f0f0").commit().is_none());
        assert!(id(&"g".repeat(40)).commit().is_none());
        assert_eq!("a/b".parse::<ModelId>().unwrap().revision(), "main");
    }
}
