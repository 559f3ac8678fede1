//! Keys and answers together.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    AnswerFile, Choice, Key, RatingResult,
    answers::parse,
    outcome::{Outcome, Vote},
};
use crate::{Bootstrap, EvalError};

/// The answers of any number of raters to one or more studies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ratings {
    pub(super) keys: Vec<Key>,
    /// One for each rater and study, with the position of its key.
    pub(super) files: Vec<(usize, AnswerFile)>,
    pub(super) superseded: Vec<PathBuf>,
    /// Every model of every study, in the order of the keys.
    pub(super) models: Vec<String>,
}

/// What all files have, by which they are told apart.
#[derive(Deserialize)]
struct Head {
    format: String,
}

impl Ratings {
    /// Reads the keys of studies and the answers to them, in any order.
    ///
    /// A rater who has saved several times counts once, with what was saved last; the other files are
    /// [`superseded`](RatingResult::superseded).
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::RatingFile`] for a file that is torn or of another form; [`EvalError::RatingField`] for
    /// answers to a study whose key is not there, to a pair that it does not have, or twice to one pair;
    /// [`EvalError::RatingConflict`] for two different keys of one study, or different answers that one rater saved at the
    /// same moment; [`EvalError::Empty`] without keys or without answers.
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self, EvalError> {
        let mut keys: Vec<(PathBuf, Key)> = Vec::new();
        let mut files: Vec<(PathBuf, AnswerFile)> = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let bytes = fs::read(path).map_err(|source| EvalError::Io {
                action: "read",
                path: path.to_path_buf(),
                source,
            })?;
            let head: Head = parse(path, &bytes, "a key of or answers to a rating study")?;
            if head.format.starts_with("selma-rating-key") {
                add_key(&mut keys, path, Key::parse(path, &bytes)?)?;
            } else {
                files.push((path.to_path_buf(), AnswerFile::parse(path, &bytes)?));
            }
        }
        if keys.is_empty() {
            return Err(EvalError::Empty {
                what: "rating keys",
            });
        }
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        Self::join(keys, files)
    }

    fn join(keys: Vec<Key>, files: Vec<(PathBuf, AnswerFile)>) -> Result<Self, EvalError> {
        let mut latest: BTreeMap<(usize, String), (PathBuf, AnswerFile)> = BTreeMap::new();
        let mut superseded = Vec::new();
        for (path, file) in files {
            let Some((study, key)) = keys
                .iter()
                .enumerate()
                .find(|(_, key)| key.study == file.study)
            else {
                let known: Vec<&str> = keys.iter().map(|key| key.study.as_str()).collect();
                return Err(EvalError::RatingField {
                    path,
                    field: "study".to_owned(),
                    expected: format!("that of a key: {}", known.join(", ")),
                    found: file.study,
                });
            };
            file.check(&path, key)?;
            let place = (study, file.rater.clone());
            let Some((other_path, other)) = latest.remove(&place) else {
                latest.insert(place, (path, file));
                continue;
            };
            if file.saved == other.saved && file.answers != other.answers {
                return Err(EvalError::RatingConflict {
                    first: other_path,
                    second: path,
                    what: format!("answers of rater {} saved at {}", file.rater, file.saved),
                });
            }
            let (kept, dropped) = if file.saved > other.saved {
                ((path, file), other_path)
            } else {
                ((other_path, other), path)
            };
            superseded.push(dropped);
            latest.insert(place, kept);
        }
        if latest.is_empty() {
            return Err(EvalError::Empty { what: "answers" });
        }
        let mut models: Vec<String> = Vec::new();
        for model in keys.iter().flat_map(|key| &key.models) {
            if !models.contains(model) {
                models.push(model.clone());
            }
        }
        let files = latest.into_iter();
        Ok(Self {
            files: files.map(|((study, _), (_, file))| (study, file)).collect(),
            keys,
            superseded,
            models,
        })
    }

    /// Win rates, agreement and strengths, with intervals.
    ///
    /// # Errors
    /// [`EvalError::Empty`] when nobody has answered anything, [`EvalError::Setting`] for bootstrap settings that make no
    /// sense.
    pub fn result(&self, bootstrap: &Bootstrap) -> Result<RatingResult, EvalError> {
        RatingResult::of(self, bootstrap)
    }

    pub(super) fn votes(&self) -> Vec<Vote<'_>> {
        let position = |model: &String| self.models.iter().position(|other| other == model);
        let mut votes = Vec::new();
        for (study, file) in &self.files {
            for answer in &file.answers {
                let pair = self
                    .keys
                    .get(*study)
                    .and_then(|key| key.pairs.get(answer.pair));
                let Some((pair, left, right)) = pair
                    .and_then(|pair| Some((pair, position(&pair.left)?, position(&pair.right)?)))
                else {
                    continue;
                };
                let outcome = match answer.choice {
                    Choice::Tie => Outcome::Tie,
                    Choice::Left if left < right => Outcome::First,
                    Choice::Right if right < left => Outcome::First,
                    Choice::Left | Choice::Right => Outcome::Second,
                };
                votes.push(Vote {
                    text: &pair.text,
                    category: pair.category.as_deref(),
                    first: left.min(right),
                    second: left.max(right),
                    outcome,
                    pair: (*study, answer.pair),
                    choice: answer.choice,
                });
            }
        }
        votes
    }
}

/// Adds a key, unless it is there already.
fn add_key(keys: &mut Vec<(PathBuf, Key)>, path: &Path, key: Key) -> Result<(), EvalError> {
    match keys.iter().find(|(_, other)| other.study == key.study) {
        None => keys.push((path.to_path_buf(), key)),
        Some((_, other)) if *other == key => {}
        Some((first, _)) => {
            return Err(EvalError::RatingConflict {
                first: first.clone(),
                second: path.to_path_buf(),
                what: format!("the key of study {}", key.study),
            });
        }
    }
    Ok(())
}
