//! Keeping the pictures that are good enough.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::by_prompt;
use crate::{DatasetError, Pictures, Scores};

/// Which pictures to keep. DreamSync (arXiv 2311.17946) draws 8 pictures a prompt and keeps the best of those with a
/// faithfulness of 0.9 and an aesthetic score of 0.6: `minimums = { faithfulness = 0.9, aesthetic = 0.6 }`, and one of the
/// two as `rank_by`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectConfig {
    /// What a picture must score at least, by scorer. None: all pass.
    pub minimums: BTreeMap<String, f64>,
    /// The scorer whose scores say which of a prompt's pictures is the best; the earliest is, if there is none, and of equals.
    pub rank_by: Option<String>,
    /// How many pictures of a prompt are looked at, from the first on; all, if there is no number.
    pub best_of: Option<usize>,
    /// How many pictures of a prompt are kept at most: 1.
    pub per_prompt: usize,
}

impl Default for SelectConfig {
    fn default() -> Self {
        Self {
            minimums: BTreeMap::new(),
            rank_by: None,
            best_of: None,
            per_prompt: 1,
        }
    }
}

impl SelectConfig {
    fn check(&self) -> Result<(), DatasetError> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(DatasetError::Setting {
                field: field.to_owned(),
                expected: expected.to_owned(),
                found,
            })
        };
        for (scorer, minimum) in &self.minimums {
            if minimum.is_nan() {
                let field = format!("minimums.{scorer}");
                return wrong(&field, "a number", minimum.to_string());
            }
        }
        if self.best_of == Some(0) {
            return wrong("best_of", "at least 1", "0".to_owned());
        }
        if self.per_prompt == 0 {
            return wrong("per_prompt", "at least 1", "0".to_owned());
        }
        Ok(())
    }
}

/// What [`select`] keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The numbers of the pictures, ascending: those of a [`Subset`](crate::Subset).
    pub kept: Vec<usize>,
    /// How many there were, and what became of the others.
    pub report: SelectReport,
}

/// What became of the pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectReport {
    /// Prompts of the dataset.
    pub prompts: usize,
    /// Those of which a picture is kept.
    pub prompts_kept: usize,
    /// Pictures of the dataset: the sum of `not_looked_at`, `failed`, `outdone` and `kept`.
    pub pictures: usize,
    /// Those behind the first [`best_of`](SelectConfig::best_of) of their prompt.
    pub not_looked_at: usize,
    /// Those that a scorer gave less than its minimum.
    pub failed: usize,
    /// Those of them that failed by a scorer. A picture can fail by several.
    pub failed_by: BTreeMap<String, usize>,
    /// Those that passed, but better ones of their prompt are kept.
    pub outdone: usize,
    /// Those that are kept.
    pub kept: usize,
}

/// Selects the best pictures of each prompt from those that score enough.
///
/// # Errors
/// [`DatasetError::Setting`] for a configuration that makes no sense, [`DatasetError::NoScore`] if a picture that is looked at has not all
/// scores that are needed.
pub fn select(
    pictures: &dyn Pictures,
    scores: &Scores,
    config: &SelectConfig,
) -> Result<Selection, DatasetError> {
    config.check()?;
    let failed_by = config.minimums.keys().map(|scorer| (scorer.clone(), 0));
    let mut report = SelectReport {
        pictures: pictures.len(),
        failed_by: failed_by.collect(),
        ..SelectReport::default()
    };
    let mut kept = Vec::new();
    for numbers in by_prompt(pictures) {
        report.prompts += 1;
        let looked_at = config.best_of.unwrap_or(usize::MAX).min(numbers.len());
        report.not_looked_at += numbers.len() - looked_at;
        let mut passed = Vec::new();
        for number in numbers.into_iter().take(looked_at) {
            let mut failed = false;
            for (scorer, &minimum) in &config.minimums {
                if scores.of(pictures, scorer, number)? < minimum {
                    failed = true;
                    *report.failed_by.entry(scorer.clone()).or_default() += 1;
                }
            }
            let rank = match &config.rank_by {
                Some(scorer) => scores.of(pictures, scorer, number)?,
                None => 0.0,
            };
            if failed {
                report.failed += 1;
            } else {
                passed.push((number, rank));
            }
        }
        // Stable, so that the earlier of equals comes first.
        passed.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
        report.outdone += passed.len().saturating_sub(config.per_prompt);
        passed.truncate(config.per_prompt);
        report.kept += passed.len();
        report.prompts_kept += usize::from(!passed.is_empty());
        kept.extend(passed.into_iter().map(|(number, _)| number));
    }
    kept.sort_unstable();
    Ok(Selection { kept, report })
}
