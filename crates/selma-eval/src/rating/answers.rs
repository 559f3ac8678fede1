//! What a rater sends back.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Key;
use crate::EvalError;

/// The form of an [`AnswerFile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerFormat {
    /// The first.
    #[default]
    #[serde(rename = "selma-rating-answers/1")]
    V1,
}

/// The answers of one person, as the page saves them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerFile {
    /// What the file is.
    pub format: AnswerFormat,
    /// Id of the study; see [`Key::study`].
    pub study: String,
    /// Drawn at random when the page is opened for the first time; it tells raters apart.
    pub rater: String,
    /// What the rater wants to be called; may be empty.
    pub name: String,
    /// When the file was saved, in milliseconds since 1970: of two files of one rater, the later counts.
    pub saved: u64,
    /// The answers, at most one to a pair.
    pub answers: Vec<Answer>,
}

/// The answer to one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Number of the pair in the order of the page, counted from 0.
    pub pair: usize,
    /// Which picture fits better.
    pub choice: Choice,
}

/// Which of two pictures fits better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// That on the left, or above.
    Left,
    /// Both alike.
    Tie,
    /// That on the right, or below.
    Right,
}

/// What a file should be, in errors.
pub(super) const ANSWERS: &str = "a file of answers to a rating study";

impl AnswerFile {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, EvalError> {
        parse(path, bytes, ANSWERS)
    }

    /// Sees that each answer is to a pair of the study and none is answered twice.
    pub(super) fn check(&self, path: &Path, key: &Key) -> Result<(), EvalError> {
        let mut seen = BTreeSet::new();
        for (index, answer) in self.answers.iter().enumerate() {
            let wrong = |expected: String| EvalError::RatingField {
                path: path.to_path_buf(),
                field: format!("answers[{index}].pair"),
                expected,
                found: answer.pair.to_string(),
            };
            if answer.pair >= key.pairs.len() {
                return Err(wrong(format!("a pair below {}", key.pairs.len())));
            }
            if !seen.insert(answer.pair) {
                return Err(wrong("a pair that is not answered above".to_owned()));
            }
        }
        Ok(())
    }
}

/// Reads a value, with errors that name the file and what it should be.
pub(super) fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    expected: &'static str,
) -> Result<T, EvalError> {
    serde_json::from_slice(bytes).map_err(|source| EvalError::RatingFile {
        path: path.to_path_buf(),
        expected,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format":"selma-rating-answers/1","study":"s","rater":"r","name":"","saved":7,
"answers":[{"pair":0,"choice":"left"},{"pair":1,"choice":"tie"}]}"#;

    #[test]
    fn a_torn_or_changed_file_is_refused_with_its_name() {
        AnswerFile::parse(Path::new("a.json"), GOOD.as_bytes()).unwrap();
        for end in 0..GOOD.len() {
            let error = AnswerFile::parse(Path::new("a.json"), &GOOD.as_bytes()[..end]);
            let error = error.unwrap_err();
            assert!(matches!(error, EvalError::RatingFile { .. }), "{end}");
            assert!(error.to_string().starts_with("a.json is not"), "{error}");
        }
        for (from, to, expected) in [
            ("\"name\":\"\",", "", "missing field `name`"),
            ("\"tie\"", "\"both\"", "unknown variant `both`"),
            ("\"pair\":1", "\"pair\":-1", "invalid value"),
            ("\"saved\"", "\"safed\"", "unknown field `safed`"),
            ("answers/1", "answers/2", "selma-rating-answers/1"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            match AnswerFile::parse(Path::new("a.json"), text.as_bytes()) {
                Err(EvalError::RatingFile { source, .. }) => {
                    let source = source.to_string();
                    assert!(source.contains(expected), "{source}");
                    assert!(source.contains("line "), "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
