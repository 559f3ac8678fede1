//! Evaluations of several models become metrics, with what they say together.

use std::collections::BTreeMap;

use selma_eval::{Estimate, Paired, stats::Cluster};

use super::{Evaluation, Metric, MetricRow, ModelKind};
use crate::SelmaError;

/// Evaluations by one metric belong into one column.
pub(super) fn same_metric(a: &Evaluation, b: &Evaluation) -> bool {
    a.metric == b.metric && a.detail == b.detail
}

/// The evaluations as metrics, in the order in which they come, with differences to the model `base`. Scores of pictures get the groups that other
/// evaluations know of. Also remarks on what could not be compared.
///
/// # Errors
/// [`SelmaError::Damaged`] for a second evaluation of a model by a metric, and for scores of one name by other weights; [`SelmaError::Eval`] from the statistics.
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
        let weights = evaluation.weights.as_ref();
        let others = evaluations.iter().find(|e| {
            let other = e.weights.as_ref().zip(weights);
            same_metric(e, evaluation) && other.is_some_and(|(other, own)| other != own)
        });
        if let Some(other) = others {
            return Err(SelmaError::Damaged {
                path: evaluation.path.clone(),
                reason: format!(
                    "its scores by {} are those of other weights than in {}: they cannot be compared",
                    metric.title(),
                    other.path.display()
                ),
            });
        }
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
