//! The texts of a study, and the pictures of datasets.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use image::RgbImage;
use selma_dataset::{Dataset, Sample};
use selma_durable::read_jsonl;
use serde::Deserialize;

use crate::{EvalError, ImageSource, dsg::Item};

/// A text that pictures were drawn for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyPrompt {
    /// What the [`ImageSource`]s know it by.
    pub id: String,
    /// The text that raters read.
    pub text: String,
    /// What results are broken down by: a skill, or the source of the prompt.
    #[serde(default, alias = "skill")]
    pub category: Option<String>,
}

impl From<&Item> for StudyPrompt {
    /// The prompt of a DSG item, its category being the item's group.
    fn from(item: &Item) -> Self {
        Self {
            id: item.id.clone(),
            text: item.text.clone(),
            category: Some(item.group.clone()),
        }
    }
}

/// Reads prompts, one JSON object a line, with `id`, `text` and, if there are categories, `category` or `skill`: the form
/// of `prompts/<skill>.jsonl`.
///
/// # Errors
/// [`EvalError::Durable`] with the line if the file cannot be read or a field is missing, unknown or mistyped;
/// [`EvalError::Empty`]; [`EvalError::DuplicateItem`] for an id that stands twice.
pub fn read_study_prompts(path: &Path) -> Result<Vec<StudyPrompt>, EvalError> {
    let prompts: Vec<StudyPrompt> = read_jsonl(path)?;
    if prompts.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    match repeated(&prompts) {
        None => Ok(prompts),
        Some(id) => Err(EvalError::DuplicateItem {
            path: path.to_path_buf(),
            item: id.to_owned(),
        }),
    }
}

/// The first id that an earlier prompt has already.
pub(super) fn repeated(prompts: &[StudyPrompt]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let mut ids = prompts.iter().map(|prompt| prompt.id.as_str());
    ids.find(|id| !seen.insert(*id))
}

/// The prompts of datasets that several models drew for the same texts, in the order of the first. A prompt's id is the
/// name of its picture, its category the skill it was drawn for.
///
/// # Errors
/// [`EvalError::Empty`] without datasets or pictures; [`EvalError::DatasetsDiffer`] for the first picture that another
/// dataset lacks, has besides, or has for another text.
pub fn shared_prompts(datasets: &[&Dataset]) -> Result<Vec<StudyPrompt>, EvalError> {
    let Some((first, others)) = datasets.split_first() else {
        return Err(EvalError::Empty { what: "datasets" });
    };
    if first.is_empty() {
        return Err(EvalError::Empty { what: "pictures" });
    }
    for second in others {
        check_same(first, second)?;
    }
    Ok(first
        .iter()
        .map(|sample| StudyPrompt {
            id: sample.file_name.clone(),
            text: sample.text.clone(),
            category: sample
                .provenance
                .as_ref()
                .map(|provenance| provenance.skill.clone())
                .filter(|skill| !skill.is_empty()),
        })
        .collect())
}

fn check_same(first: &Dataset, second: &Dataset) -> Result<(), EvalError> {
    let differ = |sample: &Sample, what, expected: &str, found: &str| {
        Err(EvalError::DatasetsDiffer {
            first: first.root().join(&sample.file_name).into(),
            second: second.root().join(&sample.file_name).into(),
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        })
    };
    let mut texts: BTreeMap<&str, &Sample> = second
        .iter()
        .map(|sample| (sample.file_name.as_str(), sample))
        .collect();
    for sample in first {
        match texts.remove(sample.file_name.as_str()) {
            None => return differ(sample, "file", "a picture", "none"),
            Some(other) if other.text != sample.text => {
                let (expected, found) = (&sample.text, &other.text);
                return differ(
                    sample,
                    "text",
                    &format!("{expected:?}"),
                    &format!("{found:?}"),
                );
            }
            Some(_) => {}
        }
    }
    match texts.into_values().next() {
        Some(sample) => differ(sample, "file", "no picture", "one"),
        None => Ok(()),
    }
}

/// The pictures of a dataset, by their file names.
#[derive(Debug)]
pub struct DatasetImages<'a> {
    dataset: &'a Dataset,
    positions: BTreeMap<&'a str, usize>,
}

impl<'a> DatasetImages<'a> {
    /// The pictures of a dataset.
    pub fn new(dataset: &'a Dataset) -> Self {
        let names = dataset.iter().map(|sample| sample.file_name.as_str());
        Self {
            dataset,
            positions: names.zip(0..).collect(),
        }
    }

    fn position(&self, item_id: &str) -> Result<usize, EvalError> {
        self.positions
            .get(item_id)
            .copied()
            .ok_or_else(|| EvalError::MissingImage {
                item: item_id.to_owned(),
                path: self.dataset.root().join(item_id),
            })
    }
}

impl ImageSource for DatasetImages<'_> {
    fn load(&self, item_id: &str) -> Result<RgbImage, EvalError> {
        Ok(self.dataset.image(self.position(item_id)?)?)
    }

    fn check(&self, item_id: &str) -> Result<(), EvalError> {
        self.position(item_id).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use selma_dataset::{DatasetWriter, Provenance};

    use super::*;

    fn dataset(folder: &Path, rows: &[(&str, &str)]) -> Dataset {
        let mut writer = DatasetWriter::open(folder).unwrap();
        for (name, text) in rows {
            let provenance = Provenance {
                skill: "colour".to_owned(),
                ..Provenance::default()
            };
            let image = RgbImage::from_pixel(2, 2, image::Rgb([9; 3]));
            writer.push(name, &image, text, provenance).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open(folder).unwrap()
    }

    #[test]
    fn datasets_must_have_the_same_texts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, rows: &[(&str, &str)]| dataset(&dir.path().join(name), rows);
        let first = at("first", &[("a.png", "a cat"), ("b.png", "a dog")]);
        let same = at("same", &[("b.png", "a dog"), ("a.png", "a cat")]);
        let prompts = shared_prompts(&[&first, &same]).unwrap();
        assert_eq!(
            prompts[1],
            StudyPrompt {
                id: "b.png".to_owned(),
                text: "a dog".to_owned(),
                category: Some("colour".to_owned())
            }
        );
        let images = DatasetImages::new(&same);
        assert_eq!(images.load("a.png").unwrap().dimensions(), (2, 2));
        assert!(matches!(
            images.check("c.png"),
            Err(EvalError::MissingImage { .. })
        ));
        for (name, rows, expected) in [
            (
                "less",
                &[("a.png", "a cat")][..],
                "b.png: file: expected a picture, found none",
            ),
            (
                "more",
                &[("a.png", "a cat"), ("b.png", "a dog"), ("c.png", "")],
                "c.png: file: expected no picture, found one",
            ),
            (
                "other",
                &[("a.png", "a cat"), ("b.png", "a cow")],
                r#"b.png: text: expected "a dog", found "a cow""#,
            ),
        ] {
            let error = shared_prompts(&[&first, &at(name, rows)]).unwrap_err();
            let error = error.to_string();
            assert!(error.ends_with(expected), "{error}");
            assert!(error.contains("first") && error.contains(name), "{error}");
        }
        let empty = at("empty", &[]);
        assert!(matches!(
            shared_prompts(&[&empty, &empty]),
            Err(EvalError::Empty { what: "pictures" })
        ));
        assert!(shared_prompts(&[]).is_err());
    }

    #[test]
    fn prompts_are_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts.jsonl");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_study_prompts(&path)
        };
        let rows = r#"{"id":"x-1","skill":"x","text":"a"}
{"id":"x-2","text":"b","category":"y"}
{"id":"x-3","text":"c"}
"#;
        let categories: Vec<Option<String>> = read(rows)
            .unwrap()
            .into_iter()
            .map(|prompt| prompt.category)
            .collect();
        assert_eq!(categories, [Some("x".into()), Some("y".into()), None]);
        for (text, expected) in [
            ("", "no prompts"),
            (r#"{"id":"x"}"#, "line 1: missing field `text`"),
            (r#"{"id":"x","text":"a","sead":1}"#, "unknown field `sead`"),
            ("{\"id\":\"x\",\"text\":\"a\"}\n{\"id\":\"x", "line 2: EOF"),
            (
                "{\"id\":\"x\",\"text\":\"a\"}\n{\"id\":\"x\",\"text\":\"b\"}",
                "item x stands twice",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
