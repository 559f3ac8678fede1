//! Files of `selma eval … --out`, whatever they measure, in one form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use selma_dataset::Score;
use selma_durable::parse_jsonl;
use selma_eval::{
    Bootstrap, Estimate, EvalResult, VqaScoreResult, dsg::Aggregation, stats::Cluster,
    tifa::TifaResult,
};
use serde_json::Value;

use super::{Answer, Unit};
use crate::SelmaError;

/// One metric of one model, with the score of every prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The file.
    pub path: PathBuf,
    /// The image model.
    pub model: String,
    /// "DSG", "TIFA", "VQAScore", or the scorer's name.
    pub metric: String,
    /// Who judged, and by which rule; empty for scorers.
    pub detail: String,
    /// SHA-256 of what a scorer is made of, where the file says.
    pub weights: Option<String>,
    /// What the scores mean.
    pub unit: Unit,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
    /// Over all prompts.
    pub overall: Estimate,
    /// By the question's category.
    pub by_category: BTreeMap<String, Estimate>,
    /// By the prompt's skill, source or category.
    pub by_group: BTreeMap<String, Estimate>,
    /// Every prompt.
    pub items: Vec<EvaluatedItem>,
}

/// One prompt of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedItem {
    /// Its id; for a scorer the name of the picture's file without its ending.
    pub id: String,
    /// The prompt; empty for scorers.
    pub text: String,
    /// Its skill, source or category; empty if it has none.
    pub group: String,
    /// Its score; `None` if the judge gave none.
    pub score: Option<f64>,
    /// What it adds to the mean.
    pub cluster: Option<Cluster>,
    /// The questions with their answers.
    pub answers: Vec<Answer>,
}

impl Evaluation {
    /// Reads a file that `selma eval dsg`, `tifa`, `vqascore` or `score` wrote with `--out`. A file of scores has an evaluation for
    /// each scorer in it. `model` is what the image model is called; without it as the file says, or as the file
    /// itself where it does not say.
    ///
    /// # Errors
    /// [`SelmaError::Io`], [`SelmaError::Damaged`] for a file of another kind, with what it lacks, and
    /// [`SelmaError::Eval`] for scores of which there is no mean.
    pub fn read(path: &Path, model: Option<&str>) -> Result<Vec<Self>, SelmaError> {
        let bytes = std::fs::read(path).map_err(|source| SelmaError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut evaluations = match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) if value.get("scorer").is_none() => vec![of_json(path, &value)?],
            // Several lines, or one with a score.
            _ => of_scores(path, &bytes)?,
        };
        for evaluation in &mut evaluations {
            path.clone_into(&mut evaluation.path);
            if let Some(model) = model {
                model.clone_into(&mut evaluation.model);
            }
        }
        Ok(evaluations)
    }

    /// The answers to yes/no questions.
    #[must_use]
    pub fn of_dsg(result: &EvalResult) -> Self {
        let official = result.aggregation == Aggregation::Official;
        let rule = if official { "" } else { ", over questions" };
        let items = result.items.iter().map(|item| {
            let sum: f64 = item.questions.iter().map(|question| question.score).sum();
            let answers = item.questions.iter().map(|question| Answer {
                question: question.question.clone(),
                category: category(&question.category_detailed, &question.category_broad),
                answer: question.answer.clone(),
                ok: question.score > 0.0,
            });
            let cluster = match official {
                true => Cluster {
                    sum: item.score,
                    count: 1,
                },
                false => Cluster {
                    sum,
                    count: u32::try_from(item.questions.len()).unwrap_or(u32::MAX),
                },
            };
            EvaluatedItem {
                id: item.item_id.clone(),
                text: item.text.clone(),
                group: item.group.clone(),
                score: Some(item.score),
                cluster: Some(cluster),
                answers: answers.collect(),
            }
        });
        let by_category = result.by_detailed.iter();
        Self {
            path: PathBuf::new(),
            model: result.model.clone(),
            metric: "DSG".to_owned(),
            detail: format!("{}{rule}", result.vqa),
            weights: None,
            unit: Unit::Share,
            bootstrap: result.bootstrap,
            overall: result.overall,
            by_category: by_category
                .map(|(name, score)| (category(name, "global"), *score))
                .collect(),
            by_group: result.by_group.clone(),
            items: items.collect(),
        }
    }

    /// The answers to multiple-choice questions.
    #[must_use]
    pub fn of_tifa(result: &TifaResult) -> Self {
        let items = result.items.iter().map(|item| {
            let answers = item.questions.iter().map(|question| Answer {
                question: question.question.clone(),
                category: question.element_type.clone(),
                answer: question.answer.clone().or_else(|| question.choice.clone()),
                ok: question.score > 0.0,
            });
            EvaluatedItem {
                id: item.item_id.clone(),
                text: item.text.clone(),
                group: String::new(),
                score: Some(item.score),
                cluster: Some(one(item.score)),
                answers: answers.collect(),
            }
        });
        Self {
            path: PathBuf::new(),
            model: result.model.clone(),
            metric: "TIFA".to_owned(),
            detail: match &result.embedder {
                Some(embedder) => format!("{}, choices by {}", result.vqa, embedder.name),
                None => result.vqa.clone(),
            },
            weights: None,
            unit: Unit::Share,
            bootstrap: result.bootstrap,
            overall: result.overall,
            by_category: result.by_type.clone(),
            by_group: BTreeMap::new(),
            items: items.collect(),
        }
    }

    /// How likely a judge was to say that each picture shows its prompt.
    #[must_use]
    pub fn of_vqa_score(result: &VqaScoreResult) -> Self {
        let items = result.items.iter().map(|item| {
            let score = item.yes.map(|yes| yes.probability);
            EvaluatedItem {
                id: item.item_id.clone(),
                text: item.text.clone(),
                group: item.category.clone().unwrap_or_default(),
                score,
                cluster: score.map(one),
                answers: Vec::new(),
            }
        });
        Self {
            path: PathBuf::new(),
            model: result.model.clone(),
            metric: "VQAScore".to_owned(),
            detail: result.vqa.clone(),
            weights: None,
            unit: Unit::Share,
            bootstrap: result.bootstrap,
            overall: result.overall,
            by_category: BTreeMap::new(),
            by_group: result.by_category.clone(),
            items: items.collect(),
        }
    }

    /// The scores of pictures by one scorer, each picture as a prompt of its own.
    ///
    /// # Errors
    /// [`SelmaError::Eval`] without scores or with one that is not finite.
    pub fn of_scores(
        model: &str,
        scorer: &str,
        scores: &[(String, f64)],
    ) -> Result<Self, SelmaError> {
        let bootstrap = Bootstrap::default();
        let clusters: Vec<Cluster> = scores.iter().map(|(_, score)| one(*score)).collect();
        let items = scores.iter().map(|(id, score)| EvaluatedItem {
            id: id.clone(),
            text: String::new(),
            group: String::new(),
            score: Some(*score),
            cluster: Some(one(*score)),
            answers: Vec::new(),
        });
        Ok(Self {
            path: PathBuf::new(),
            model: model.to_owned(),
            metric: scorer.to_owned(),
            detail: String::new(),
            weights: None,
            unit: Unit::Plain,
            bootstrap,
            overall: bootstrap.estimate(&clusters)?,
            by_category: BTreeMap::new(),
            by_group: BTreeMap::new(),
            items: items.collect(),
        })
    }
}

/// DSG's finer category; `-`, the only one of the broad category `global`, gets the name of that.
fn category(detailed: &str, broad: &str) -> String {
    match detailed {
        "-" => broad.to_owned(),
        name => name.to_owned(),
    }
}

fn one(score: f64) -> Cluster {
    Cluster {
        sum: score,
        count: 1,
    }
}

fn of_json(path: &Path, value: &Value) -> Result<Evaluation, SelmaError> {
    let has = |key: &str| value.get(key).is_some();
    if has("aggregation") {
        Ok(Evaluation::of_dsg(&EvalResult::load(path)?))
    } else if has("by_type") {
        Ok(Evaluation::of_tifa(&TifaResult::load(path)?))
    } else if has("coverage") {
        Ok(Evaluation::of_vqa_score(&VqaScoreResult::load(path)?))
    } else {
        Err(SelmaError::Damaged {
            path: path.to_owned(),
            reason: "expected a result of `selma eval dsg`, `tifa` or `vqascore`, or lines of `selma eval score`; found JSON \
                     without `aggregation`, `by_type`, `coverage` or `scorer`"
                .to_owned(),
        })
    }
}

fn of_scores(path: &Path, bytes: &[u8]) -> Result<Vec<Evaluation>, SelmaError> {
    let damaged = |reason: String| SelmaError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let mut by_scorer: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let mut weights: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (line, row) in (1..).zip(parse_jsonl::<Score>(path, bytes)) {
        let row = row?;
        let Some(name) = row.file_name else {
            let reason = format!("line {line}: expected `file_name`, found a score without it");
            return Err(damaged(reason));
        };
        let id = Path::new(&name).with_extension("");
        let id = id.to_string_lossy().into_owned();
        let hash = weights.entry(row.scorer.clone());
        if *hash.or_insert_with(|| row.scorer_sha256.clone()) != row.scorer_sha256 {
            let reason = format!("line {line}: `{}` had other weights before", row.scorer);
            return Err(damaged(reason));
        }
        let scores = by_scorer.entry(row.scorer.clone()).or_default();
        if scores.insert(id, row.score).is_some() {
            let reason = format!(
                "line {line}: a second score of `{name}` by `{}`",
                row.scorer
            );
            return Err(damaged(reason));
        }
    }
    if by_scorer.is_empty() {
        return Err(damaged(
            "expected results or scores, found nothing".to_owned(),
        ));
    }
    let model = path.file_stem().unwrap_or_default().to_string_lossy();
    let evaluations = by_scorer.into_iter().map(|(scorer, scores)| {
        let scores: Vec<(String, f64)> = scores.into_iter().collect();
        let weights = weights.remove(&scorer).flatten();
        let evaluation = Evaluation::of_scores(&model, &scorer, &scores)?;
        Ok(Evaluation {
            weights,
            ..evaluation
        })
    });
    evaluations.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_category_without_a_name_is_called_as_the_broad_one() {
        assert_eq!(category("-", "global"), "global");
        assert_eq!(category("color", "attribute"), "color");
    }
}
