//! Who drew what in a study.

use std::{fs, path::Path};

use selma_durable::write_json;
use serde::{Deserialize, Serialize};

use super::answers::parse;
use crate::EvalError;

/// The form of a [`Key`]'s file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyFormat {
    /// The first.
    #[default]
    #[serde(rename = "selma-rating-key/1")]
    V1,
}

/// What the page of a study does not say: which model drew which picture. It is needed to read the answers, and is not for
/// the raters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What the file is.
    pub format: KeyFormat,
    /// The study's id: a hash of its pictures, texts, settings and models. Answers carry it, too.
    pub study: String,
    /// What raters see above the pictures.
    pub title: String,
    /// Seed of the order of the pairs and of their sides.
    pub seed: u64,
    /// The models, in the order given; results are those of the first over the second, and so on.
    pub models: Vec<String>,
    /// The pairs in the order in which raters see them; answers give the number of the pair, counted from 0.
    pub pairs: Vec<KeyPair>,
}

/// Two pictures beside each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The prompt's id.
    pub item: String,
    /// The prompt.
    pub text: String,
    /// Skill or source of the prompt, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The model whose picture is on the left, or above on a phone.
    pub left: String,
    /// The model whose picture is on the right, or below.
    pub right: String,
}

/// What a file should be, in errors.
pub(super) const KEY: &str = "the key of a rating study";

impl Key {
    /// Writes the key as indented JSON, in full or not at all.
    ///
    /// # Errors
    /// [`EvalError::Durable`] when the file cannot be written; the old one is then untouched.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        Ok(write_json(path, self)?)
    }

    /// Reads a key that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::RatingFile`] for a torn file, a missing or an unknown key;
    /// [`EvalError::RatingField`] for a pair without two models of the study.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let bytes = fs::read(path).map_err(|source| EvalError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(path, &bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, EvalError> {
        let key: Self = parse(path, bytes, KEY)?;
        for (index, pair) in key.pairs.iter().enumerate() {
            for (side, model) in [("left", &pair.left), ("right", &pair.right)] {
                let other_side = side == "right" && pair.left == pair.right;
                if other_side || !key.models.contains(model) {
                    return Err(EvalError::RatingField {
                        path: path.to_path_buf(),
                        field: format!("pairs[{index}].{side}"),
                        expected: format!(
                            "one of {} and not that on the other side",
                            key.models.join(", ")
                        ),
                        found: model.clone(),
                    });
                }
            }
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let pair = |item: &str, left: &str, right: &str| KeyPair {
            item: item.to_owned(),
            text: format!("a {item}"),
            category: None,
            left: left.to_owned(),
            right: right.to_owned(),
        };
        Key {
            format: KeyFormat::V1,
            study: "0123456789abcdef".to_owned(),
            title: "Which?".to_owned(),
            seed: u64::MAX,
            models: vec!["base".to_owned(), "tuned".to_owned()],
            pairs: vec![pair("cat", "base", "tuned"), pair("dog", "tuned", "base")],
        }
    }

    #[test]
    fn is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        key().save(&path).unwrap();
        assert_eq!(Key::load(&path).unwrap(), key());
        let missing = Key::load(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }

    #[test]
    fn errors_name_file_and_field() {
        let good = serde_json::to_string(&key()).unwrap();
        for (from, to, expected) in [
            ("\"seed\":", "\"sead\":", "unknown field `sead`"),
            ("key/1", "key/9", "selma-rating-key/1"),
            (
                "\"left\":\"tuned\"",
                "\"left\":\"x\"",
                "field pairs[1].left: expected one of base, tuned",
            ),
            (
                "\"left\":\"tuned\"",
                "\"left\":\"base\"",
                "field pairs[1].right",
            ),
            ("}]}", "}]", "EOF"),
        ] {
            let text = good.replace(from, to);
            assert_ne!(text, good);
            let error = Key::parse(Path::new("a.key.json"), text.as_bytes()).unwrap_err();
            let cause =
                std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            let error = format!("{error}: {cause}");
            assert!(error.starts_with("a.key.json"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
