//! Scores of pictures in a file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use selma_durable::{DurableError, parse_jsonl, write_jsonl};
use serde::{Deserialize, Serialize};

use crate::picture::sha256;
use crate::source::{by_name, name_of};
use crate::words::list;
use crate::{DatasetError, Pictures};

/// A row of a file of scores: what a scorer thinks of a picture. More is better.
///
/// The picture is named by its file, its hash, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The picture's [name](Pictures::name) in its dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// SHA-256 of the picture's file in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// Who scored it, for example `clip-vit-l-14` or `dsg`.
    pub scorer: String,
    /// SHA-256 of what the scorer is made of, in hexadecimal, where it has weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer_sha256: Option<String>,
    /// The score, a finite number on the scorer's own scale.
    pub score: f64,
}

impl Score {
    /// The score of a picture, named by its file and, if the dataset records it, its hash.
    ///
    /// # Errors
    /// [`DatasetError::Index`] if there is no such picture, [`DatasetError::Setting`] if the score is not finite.
    pub fn new(
        pictures: &dyn Pictures,
        index: usize,
        scorer: &str,
        score: f64,
    ) -> Result<Self, DatasetError> {
        let new = Self {
            file_name: Some(name_of(pictures, index)?.to_owned()),
            image_sha256: pictures.image_sha256(index).map(str::to_owned),
            scorer: scorer.to_owned(),
            scorer_sha256: None,
            score,
        };
        new.check_finite()?;
        Ok(new)
    }

    fn check_finite(&self) -> Result<(), DatasetError> {
        if self.score.is_finite() {
            return Ok(());
        }
        let picture = self.file_name.as_ref().or(self.image_sha256.as_ref());
        Err(DatasetError::Setting {
            field: format!("score of `{}`", picture.map_or("", String::as_str)),
            expected: "a finite number".to_owned(),
            found: self.score.to_string(),
        })
    }
}

/// Writes scores, one JSON object a line.
///
/// # Errors
/// [`DatasetError::Setting`] if a score is not finite, which JSON cannot hold; [`DatasetError::Durable`]. A file that is there
/// then stays as it was.
pub fn write_scores(path: &Path, scores: &[Score]) -> Result<(), DatasetError> {
    scores.iter().try_for_each(Score::check_finite)?;
    Ok(write_jsonl(path, scores)?)
}

/// The scores of a dataset's pictures, by scorer.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    by_scorer: BTreeMap<String, Vec<Option<f64>>>,
}

impl Scores {
    /// Reads a file of scores for the pictures of a dataset.
    ///
    /// # Errors
    /// Those of [`from_rows`](Self::from_rows), and [`DatasetError::Durable`] if the file cannot be read or a line is not JSON
    /// of the right form.
    pub fn read(path: &Path, pictures: &dyn Pictures) -> Result<Self, DatasetError> {
        let bytes = fs::read(path).map_err(DurableError::io("read", path))?;
        let rows = parse_jsonl(path, &bytes).collect::<Result<Vec<Score>, _>>()?;
        Self::from_rows(path, &rows, pictures)
    }

    /// Finds the pictures that scores are of. `path` is what an error calls the rows. A hash without a name stands for all pictures with this content.
    /// If the dataset records no hashes, those in rows with a name are not looked at, and for rows without one all pictures
    /// are read once.
    ///
    /// # Errors
    /// [`DatasetError::Field`] for a row that names no scorer, no picture, a picture that is not there, or one that has changed since,
    /// for a score that is not finite, for rows of one scorer with other hashes of its weights, and for a second score of a picture by one scorer; the errors of [`Pictures::bytes`].
    pub fn from_rows(
        path: &Path,
        rows: &[Score],
        pictures: &dyn Pictures,
    ) -> Result<Self, DatasetError> {
        let names = by_name(pictures);
        let mut hashes = None;
        let mut by_scorer: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        let mut weights: HashMap<&str, &Option<String>> = HashMap::new();
        for (line, row) in (1..).zip(rows) {
            let wrong = |field: &str, expected, found| DatasetError::Field {
                path: path.into(),
                line,
                field: field.to_owned(),
                expected,
                found,
            };
            if row.scorer.trim().is_empty() {
                return Err(wrong("scorer", "a name", format!("{:?}", row.scorer)));
            }
            if !row.score.is_finite() {
                return Err(wrong("score", "a finite number", row.score.to_string()));
            }
            let hash = &row.scorer_sha256;
            let before = *weights.entry(&row.scorer).or_insert(hash);
            if before != hash {
                let text = |hash: &Option<String>| match hash {
                    Some(hash) => format!("`{hash}`"),
                    None => "none".to_owned(),
                };
                return Err(wrong(
                    "scorer_sha256",
                    "one hash for all scores by a scorer",
                    format!("{} and {} of `{}`", text(before), text(hash), row.scorer),
                ));
            }
            let indices = match (&row.file_name, &row.image_sha256) {
                (Some(name), hash) => {
                    let Some(&index) = names.get(name.as_str()) else {
                        return Err(wrong(
                            "file_name",
                            "a picture of the dataset",
                            format!("`{name}`"),
                        ));
                    };
                    let recorded = pictures.image_sha256(index);
                    if let (Some(hash), Some(recorded)) = (hash, recorded)
                        && !hash.eq_ignore_ascii_case(recorded)
                    {
                        return Err(wrong(
                            "image_sha256",
                            "the hash of the picture that is there now",
                            format!("`{hash}`, but `{name}` has `{recorded}`"),
                        ));
                    }
                    vec![index]
                }
                (None, Some(hash)) => {
                    let hashes = match &mut hashes {
                        Some(hashes) => hashes,
                        none => none.insert(by_hash(pictures)?),
                    };
                    match hashes.get(&hash.to_ascii_lowercase()) {
                        Some(indices) => indices.clone(),
                        None => {
                            return Err(wrong(
                                "image_sha256",
                                "the hash of a picture of the dataset",
                                format!("`{hash}`"),
                            ));
                        }
                    }
                }
                (None, None) => {
                    return Err(wrong(
                        "file_name",
                        "`file_name` or `image_sha256`",
                        "neither".to_owned(),
                    ));
                }
            };
            let scores = by_scorer
                .entry(row.scorer.clone())
                .or_insert_with(|| vec![None; pictures.len()]);
            for index in indices {
                let Some(slot) = scores.get_mut(index) else {
                    continue;
                };
                if slot.replace(row.score).is_some() {
                    let name = name_of(pictures, index)?;
                    return Err(wrong(
                        "scorer",
                        "one score of a picture by a scorer",
                        format!("a second one of `{name}` by `{}`", row.scorer),
                    ));
                }
            }
        }
        Ok(Self { by_scorer })
    }

    /// The scorers, in the order of their names.
    pub fn scorers(&self) -> impl Iterator<Item = &str> {
        self.by_scorer.keys().map(String::as_str)
    }

    /// The score of a picture by a scorer, if there is one.
    pub fn get(&self, scorer: &str, index: usize) -> Option<f64> {
        *self.by_scorer.get(scorer)?.get(index)?
    }

    /// The score of a picture of the dataset that these are for.
    ///
    /// # Errors
    /// [`DatasetError::NoScore`], [`DatasetError::Index`].
    pub fn of(
        &self,
        pictures: &dyn Pictures,
        scorer: &str,
        index: usize,
    ) -> Result<f64, DatasetError> {
        let name = name_of(pictures, index)?;
        self.get(scorer, index)
            .ok_or_else(|| DatasetError::NoScore {
                path: pictures.root().into(),
                name: name.to_owned(),
                scorer: scorer.to_owned(),
                found: if self.by_scorer.contains_key(scorer) {
                    "those of other pictures".to_owned()
                } else {
                    let scorers: Vec<&str> = self.scorers().collect();
                    format!("scorers {}", list(&scorers, "and"))
                },
            })
    }
}

/// Numbers of pictures by the hash of their files in lower case.
fn by_hash(pictures: &dyn Pictures) -> Result<HashMap<String, Vec<usize>>, DatasetError> {
    let mut hashes: HashMap<String, Vec<usize>> = HashMap::new();
    for index in 0..pictures.len() {
        let hash = match pictures.image_sha256(index) {
            Some(hash) => hash.to_ascii_lowercase(),
            None => sha256(&pictures.bytes(index)?),
        };
        hashes.entry(hash).or_default().push(index);
    }
    Ok(hashes)
}
