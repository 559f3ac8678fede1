//! What is in a dataset.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::HumanCount;
use selma_dataset::Dataset;
use serde::Serialize;

use super::Description;
use crate::table::pairs;

/// A folder of pictures with texts.
#[derive(Debug, Serialize)]
pub struct Summary {
    path: PathBuf,
    samples: usize,
    distinct_texts: usize,
    /// Words of the shortest, the average and the longest text.
    words: Option<Words>,
    /// Pictures by size, `WIDTHxHEIGHT`.
    sizes: BTreeMap<String, usize>,
    /// Pictures whose hash is recorded.
    hashed: usize,
    skills: BTreeMap<String, usize>,
    models: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct Words {
    least: usize,
    mean: f64,
    most: usize,
}

pub fn describe(path: &Path) -> anyhow::Result<Summary> {
    let dataset = Dataset::open(path)?;
    let mut sizes = BTreeMap::new();
    let mut skills = BTreeMap::new();
    let mut models = BTreeMap::new();
    for sample in &dataset {
        let file = path.join(&sample.file_name);
        let (width, height) = image::image_dimensions(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        *sizes.entry(format!("{width}x{height}")).or_default() += 1;
        if let Some(provenance) = &sample.provenance {
            for (counts, name) in [
                (&mut skills, &provenance.skill),
                (&mut models, &provenance.model),
            ] {
                if !name.is_empty() {
                    *counts.entry(name.clone()).or_default() += 1;
                }
            }
        }
    }
    let texts: BTreeSet<&str> = dataset.iter().map(|sample| sample.text.as_str()).collect();
    Ok(Summary {
        path: path.to_owned(),
        samples: dataset.len(),
        distinct_texts: texts.len(),
        words: words(&dataset),
        sizes,
        hashed: dataset
            .iter()
            .filter(|sample| sample.image_sha256.is_some())
            .count(),
        skills,
        models,
    })
}

fn words(dataset: &Dataset) -> Option<Words> {
    let counts: Vec<usize> = dataset
        .iter()
        .map(|sample| sample.text.split_whitespace().count())
        .collect();
    Some(Words {
        least: *counts.iter().min()?,
        mean: counts.iter().sum::<usize>() as f64 / counts.len() as f64,
        most: *counts.iter().max()?,
    })
}

impl Description for Summary {
    fn text(&self) -> String {
        let list = |counts: &BTreeMap<String, usize>| {
            let items: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} ({})", HumanCount(*count as u64)))
                .collect();
            if items.is_empty() {
                "none recorded".to_owned()
            } else {
                items.join(", ")
            }
        };
        let words = self.words.as_ref().map_or("none".to_owned(), |words| {
            format!(
                "{} to {} words, {:.1} on average",
                words.least, words.most, words.mean
            )
        });
        pairs(&[
            ("dataset", self.path.display().to_string()),
            ("samples", HumanCount(self.samples as u64).to_string()),
            (
                "texts",
                format!(
                    "{} distinct, {words}",
                    HumanCount(self.distinct_texts as u64)
                ),
            ),
            ("sizes", list(&self.sizes)),
            ("hashes", format!("{} of {}", self.hashed, self.samples)),
            ("skills", list(&self.skills)),
            ("models", list(&self.models)),
        ])
    }
}
