//! Evaluations of several models and metrics become the parts of a report, and a report of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use selma_dataset::{Dataset, METADATA_FILE, Pictures};
use selma_eval::{Estimate, ImageFolder, Paired, stats::Cluster};

use super::{
    EvaluatedItem, Evaluation, Metric, MetricRow, ModelKind, ModelRow, Report, SampleImage,
    SampleRow, Unit,
};
use crate::SelmaError;

/// Evaluations that no run has made, to be shown side by side.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Heading of the page.
    pub title: String,
    /// What was measured. Models and metrics are shown in the order in which they first come.
    pub evaluations: Vec<Evaluation>,
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
        let mut seen = BTreeSet::new();
        for evaluation in &self.evaluations {
            if seen.insert(&evaluation.path) && !evaluation.path.as_os_str().is_empty() {
                let hash = selma_durable::sha256(&evaluation.path)?;
                hashes.push((evaluation.path.display().to_string(), hex::encode(hash)));
            }
        }
        Ok(hashes)
    }
}

/// Evaluations by one metric belong into one column.
fn same_metric(a: &Evaluation, b: &Evaluation) -> bool {
    a.metric == b.metric && a.detail == b.detail
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

/// The evaluations as metrics, in the order in which they come, with differences to the model `base`. Scores of pictures get the groups that other
/// evaluations know of. Also remarks on what could not be compared.
///
/// # Errors
/// [`SelmaError::Damaged`] for a second evaluation of a model by a metric; [`SelmaError::Eval`] from the statistics.
pub(crate) fn metrics_of(
    evaluations: &[Evaluation],
    base: &str,
    kind: &dyn Fn(&str) -> ModelKind,
) -> Result<(Vec<Metric>, Vec<String>), SelmaError> {
    let items = || evaluations.iter().flat_map(|e| &e.items);
    let groups: BTreeMap<&str, &str> = items()
        .filter(|item| !item.group.is_empty())
        .map(|item| (item.id.as_str(), item.group.as_str()))
        .collect();
    let mut metrics: Vec<Metric> = Vec::new();
    let mut notes = Vec::new();
    for evaluation in evaluations {
        let of_base = evaluations
            .iter()
            .find(|e| e.model == base && same_metric(e, evaluation))
            .filter(|_| evaluation.model != base);
        let paired = of_base
            .map(|of_base| paired(evaluation, of_base))
            .transpose()?;
        let row = MetricRow {
            model: evaluation.model.clone(),
            kind: kind(&evaluation.model),
            overall: evaluation.overall,
            difference_to_base: paired.flatten(),
            by_category: by_category(evaluation, &groups)?,
            values: scores(evaluation),
        };
        let found = metrics
            .iter_mut()
            .find(|m| m.name == evaluation.metric && m.detail == evaluation.detail);
        let Some(metric) = found else {
            metrics.push(Metric {
                name: evaluation.metric.clone(),
                detail: evaluation.detail.clone(),
                unit: evaluation.unit,
                rows: vec![row],
            });
            continue;
        };
        if metric.row(&row.model).is_some() {
            return Err(SelmaError::Damaged {
                path: evaluation.path.clone(),
                reason: format!(
                    "a second evaluation of `{}` by {}",
                    row.model,
                    metric.title()
                ),
            });
        }
        if paired == Some(None) {
            notes.push(format!(
                "{} of {} is of other prompts or questions than that of {base}, so the two are not compared.",
                metric.title(),
                row.model
            ));
        }
        metric.rows.push(row);
    }
    Ok((metrics, notes))
}

fn scores(evaluation: &Evaluation) -> BTreeMap<String, f64> {
    let scored = evaluation.items.iter();
    scored
        .filter_map(|item| Some((item.id.clone(), item.score?)))
        .collect()
}

/// The difference over the same prompts; `None` if the two were not asked the same.
fn paired(a: &Evaluation, b: &Evaluation) -> Result<Option<Paired>, SelmaError> {
    let clusters = |of: &Evaluation| -> BTreeMap<String, Cluster> {
        let items = of.items.iter();
        items
            .filter_map(|item| Some((item.id.clone(), item.cluster?)))
            .collect()
    };
    let (first, second) = (clusters(a), clusters(b));
    let alike = first.len() == second.len()
        && first
            .iter()
            .zip(&second)
            .all(|((a, x), (b, y))| a == b && x.count == y.count);
    if !alike {
        return Ok(None);
    }
    // In the order of the first one's file.
    let order = || a.items.iter().map(|item| &item.id);
    let first: Vec<Cluster> = order().filter_map(|id| first.get(id).copied()).collect();
    let second: Vec<Cluster> = order().filter_map(|id| second.get(id).copied()).collect();
    Ok(Some(a.bootstrap.paired(&first, &second)?))
}

/// By the question's category; without questions by the group of the prompt.
fn by_category(
    evaluation: &Evaluation,
    groups: &BTreeMap<&str, &str>,
) -> Result<BTreeMap<String, Estimate>, SelmaError> {
    if !evaluation.by_category.is_empty() {
        return Ok(evaluation.by_category.clone());
    }
    if !evaluation.by_group.is_empty() {
        return Ok(evaluation.by_group.clone());
    }
    let mut clusters: BTreeMap<&str, Vec<Cluster>> = BTreeMap::new();
    for item in &evaluation.items {
        if let (Some(group), Some(cluster)) = (groups.get(item.id.as_str()), item.cluster) {
            clusters.entry(group).or_default().push(cluster);
        }
    }
    let estimates = clusters
        .into_iter()
        .map(|(name, clusters)| Ok((name.to_owned(), evaluation.bootstrap.estimate(&clusters)?)));
    estimates.collect()
}
