//! Evaluations of several models and metrics, without a run, become a report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use selma_dataset::{Dataset, METADATA_FILE, Pictures};
use selma_eval::ImageFolder;

use super::{
    EvaluatedItem, Evaluation, HumanRating, Metric, ModelKind, ModelRow, Report, SampleImage,
    SampleRow, Unit,
    measured::{metrics_of, same_metric},
};
use crate::SelmaError;

/// Evaluations that no run has made, to be shown side by side.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Heading of the page.
    pub title: String,
    /// What was measured. Models and metrics are shown in the order in which they first come.
    pub evaluations: Vec<Evaluation>,
    /// What people said of them.
    pub ratings: Vec<HumanRating>,
    /// The model that the others are compared with; the first one if none is named.
    pub base: Option<String>,
    /// Folders with a picture `ID.png` for each prompt, by model.
    pub images: Vec<(String, PathBuf)>,
}

impl Comparison {
    /// The report: metrics with differences to the base, distributions, and the pictures of all prompts.
    ///
    /// The first metric with questions, else the first that is a share, is the one by category and skill.
    ///
    /// # Errors
    /// [`SelmaError::Damaged`] for a second evaluation of a model by a metric, and for a base or a model of pictures that nothing was
    /// measured of; [`SelmaError::Io`] and [`SelmaError::Eval`] for pictures that cannot be read.
    pub fn report(&self) -> Result<Report, SelmaError> {
        let base = self.base()?;
        let kind = |model: &str| match model == base {
            true => ModelKind::Base,
            false => ModelKind::Other,
        };
        let (metrics, mut notes) = metrics_of(&self.evaluations, &base, &kind)?;
        let leading = self.leading();
        let models = leading.map_or_else(Vec::new, |leading| {
            let metric = metrics
                .iter()
                .find(|metric| metric.name == leading.metric && metric.detail == leading.detail);
            let of = self.evaluations.iter().filter(|e| same_metric(e, leading));
            of.map(|evaluation| model_row(evaluation, metric, kind(&evaluation.model)))
                .collect()
        });
        // The table by category speaks of the first metric.
        let mut metrics = metrics;
        if let Some(leading) = leading {
            metrics.sort_by_key(|m| m.name != leading.metric || m.detail != leading.detail);
        }
        notes.insert(0, "Intervals are bootstrap intervals over prompts; differences are paired by prompt. Scores of scorers take each picture as a prompt.".to_owned());
        Ok(Report {
            title: self.title.clone(),
            summary: self.summary(&metrics, &base),
            confidence: self
                .evaluations
                .first()
                .map_or(0.95, |e| e.bootstrap.confidence),
            models,
            samples: self.samples(leading)?,
            metrics,
            ratings: self.ratings.clone(),
            hashes: self.hashes()?,
            notes,
            ..Report::default()
        })
    }

    fn base(&self) -> Result<String, SelmaError> {
        let mut models = self.evaluations.iter().map(|e| &e.model);
        let base = match &self.base {
            Some(base) => models.find(|model| *model == base),
            None => models.next(),
        };
        base.cloned().ok_or_else(|| {
            let models: BTreeSet<&str> =
                self.evaluations.iter().map(|e| e.model.as_str()).collect();
            let models: Vec<&str> = models.into_iter().collect();
            SelmaError::Damaged {
                path: PathBuf::from(self.base.as_deref().unwrap_or("evaluations")),
                reason: format!(
                    "no model of this name was measured, only {}",
                    models.join(", ")
                ),
            }
        })
    }

    fn leading(&self) -> Option<&Evaluation> {
        let with_answers = |e: &&Evaluation| e.items.iter().any(|item| !item.answers.is_empty());
        let mut all = self.evaluations.iter();
        let first = all.clone().find(with_answers);
        first.or_else(|| all.find(|e| e.unit == Unit::Share))
    }

    fn summary(&self, metrics: &[Metric], base: &str) -> String {
        let names: Vec<String> = metrics.iter().map(Metric::title).collect();
        let models: BTreeSet<&str> = self.evaluations.iter().map(|e| e.model.as_str()).collect();
        let models = match models.len() {
            1 => "One model".to_owned(),
            count => format!("{count} models"),
        };
        format!(
            "{models} measured by {}; differences are to {base}.",
            names.join("; ")
        )
    }

    /// The prompts of which there are pictures.
    fn samples(&self, leading: Option<&Evaluation>) -> Result<Vec<SampleRow>, SelmaError> {
        let mut rows: Vec<SampleRow> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        if self.images.is_empty() {
            return Ok(rows);
        }
        for item in self.evaluations.iter().flat_map(|e| &e.items) {
            let place = *places.entry(item.id.clone()).or_insert_with(|| {
                rows.push(SampleRow {
                    id: item.id.clone(),
                    skill: String::new(),
                    prompt: String::new(),
                    images: Vec::new(),
                });
                rows.len() - 1
            });
            if let Some(row) = rows.get_mut(place) {
                fill(&mut row.prompt, &item.text);
                fill(&mut row.skill, &item.group);
            }
        }
        for (model, folder) in &self.images {
            self.check_model(model)?;
            let answered = leading.and_then(|leading| {
                let mut all = self.evaluations.iter();
                all.find(|e| same_metric(e, leading) && e.model == *model)
            });
            let answered = answered.into_iter().flat_map(|e| &e.items);
            let answered: BTreeMap<&str, &EvaluatedItem> =
                answered.map(|item| (item.id.as_str(), item)).collect();
            let captions = captions(folder)?;
            let images = ImageFolder::new(folder);
            for row in &mut rows {
                let Some(png) = picture(&images, &row.id)? else {
                    continue;
                };
                if let Some(caption) = captions.get(&row.id) {
                    fill(&mut row.prompt, caption);
                }
                let item = answered.get(row.id.as_str());
                row.images.push(SampleImage {
                    model: model.clone(),
                    png,
                    score: item.and_then(|item| item.score).unwrap_or(f64::NAN),
                    answers: item.map_or_else(Vec::new, |item| item.answers.clone()),
                });
            }
        }
        rows.retain(|row| !row.images.is_empty());
        for row in &mut rows {
            let id = row.id.clone();
            fill(&mut row.prompt, &id);
        }
        if rows.is_empty() {
            return Err(SelmaError::Damaged {
                path: self
                    .images
                    .first()
                    .map(|(_, folder)| folder.clone())
                    .unwrap_or_default(),
                reason:
                    "expected a picture `ID.png` for the prompts of the evaluations, found none"
                        .to_owned(),
            });
        }
        Ok(rows)
    }

    fn check_model(&self, model: &str) -> Result<(), SelmaError> {
        if self.evaluations.iter().any(|e| e.model == model) {
            return Ok(());
        }
        Err(SelmaError::Damaged {
            path: PathBuf::from(model),
            reason: "there are pictures of this model, but nothing was measured of it".to_owned(),
        })
    }

    fn hashes(&self) -> Result<Vec<(String, String)>, SelmaError> {
        let mut hashes = Vec::new();
        let (mut seen, mut scorers) = (BTreeSet::new(), BTreeSet::new());
        for rating in &self.ratings {
            let hash = selma_durable::sha256(&rating.path)?;
            hashes.push((rating.path.display().to_string(), hex::encode(hash)));
        }
        for evaluation in &self.evaluations {
            if seen.insert(&evaluation.path) && !evaluation.path.as_os_str().is_empty() {
                let hash = selma_durable::sha256(&evaluation.path)?;
                hashes.push((evaluation.path.display().to_string(), hex::encode(hash)));
            }
            if let Some(weights) = &evaluation.weights
                && scorers.insert(&evaluation.metric)
            {
                let name = format!("scorer {}", evaluation.metric);
                hashes.push((name, weights.clone()));
            }
        }
        Ok(hashes)
    }
}

fn fill(text: &mut String, with: &str) {
    if text.is_empty() {
        with.clone_into(text);
    }
}

/// The picture of a prompt, if there is one.
fn picture(images: &ImageFolder, id: &str) -> Result<Option<Vec<u8>>, SelmaError> {
    let path = images.image_path(id)?;
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SelmaError::Io {
            action: "read",
            path,
            source,
        }),
    }
}

/// The captions of a folder's pictures by their ids, if it is a data set.
fn captions(folder: &std::path::Path) -> Result<BTreeMap<String, String>, SelmaError> {
    let mut captions = BTreeMap::new();
    if folder.join(METADATA_FILE).is_file() {
        let dataset = Dataset::open(folder)?;
        for index in 0..dataset.len() {
            if let (Some(name), Some(text)) = (
                Pictures::name(&dataset, index),
                Pictures::text(&dataset, index),
            ) {
                captions.insert(name.trim_end_matches(".png").to_owned(), text.to_owned());
            }
        }
    }
    Ok(captions)
}

fn model_row(evaluation: &Evaluation, metric: Option<&Metric>, kind: ModelKind) -> ModelRow {
    let row = metric.and_then(|metric| metric.row(&evaluation.model));
    ModelRow {
        name: evaluation.model.clone(),
        kind,
        guidance: f64::NAN,
        overall: evaluation.overall,
        by_skill: evaluation.by_group.clone(),
        by_category: evaluation.by_category.clone(),
        difference_to_base: row.and_then(|row| row.difference_to_base),
    }
}
