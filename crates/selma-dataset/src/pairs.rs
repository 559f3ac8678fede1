//! Preference pairs: of two pictures of one prompt, which is the better one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use selma_durable::{DurableError, parse_jsonl, write_jsonl};
use serde::{Deserialize, Serialize};

use crate::source::{by_name, by_prompt, name_of};
use crate::{DatasetError, Pictures, Scores};

/// Two pictures of one prompt, by their numbers in their dataset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The better one.
    pub chosen: usize,
    /// The worse one.
    pub rejected: usize,
    /// Their scores in the same order, unless the preference is somebody's who gave none. The first is the higher one.
    pub scores: Option<[f64; 2]>,
}

/// Which two of a prompt's pictures make a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairRule {
    /// The one with the highest and the one with the lowest score; the first of equals.
    #[default]
    BestWorst,
    /// The first two. With two pictures a prompt, as in SELMA's comparison with DPO (arXiv 2403.06952, appendix I), it is the
    /// same as [`BestWorst`](Self::BestWorst).
    FirstTwo,
}

/// What became of the prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairReport {
    /// All prompts: the sum of the rest.
    pub prompts: usize,
    /// Prompts that gave a pair.
    pub pairs: usize,
    /// Prompts whose two pictures have equal scores; they give none.
    pub ties: usize,
    /// Prompts with a single picture; they give none.
    pub single: usize,
}

/// Makes a pair of the pictures of each prompt, in the order of the prompts.
///
/// # Errors
/// [`DatasetError::NoScore`] if a picture that the rule looks at has no score by `scorer`.
pub fn make_pairs(
    pictures: &dyn Pictures,
    scores: &Scores,
    scorer: &str,
    rule: PairRule,
) -> Result<(Vec<Pair>, PairReport), DatasetError> {
    let mut report = PairReport::default();
    let mut pairs = Vec::new();
    for numbers in by_prompt(pictures) {
        report.prompts += 1;
        let looked_at = match rule {
            PairRule::BestWorst => numbers.len(),
            PairRule::FirstTwo => 2,
        };
        let mut scored = Vec::with_capacity(numbers.len());
        if numbers.len() > 1 {
            for &number in numbers.iter().take(looked_at) {
                scored.push((number, scores.of(pictures, scorer, number)?));
            }
        }
        let mut ends = None;
        for &picture in &scored {
            let (mut best, mut worst) = ends.unwrap_or((picture, picture));
            if picture.1 > best.1 {
                best = picture;
            }
            if picture.1 < worst.1 {
                worst = picture;
            }
            ends = Some((best, worst));
        }
        match ends {
            None => report.single += 1,
            Some((best, worst)) if best.1 > worst.1 => {
                report.pairs += 1;
                pairs.push(Pair {
                    chosen: best.0,
                    rejected: worst.0,
                    scores: Some([best.1, worst.1]),
                });
            }
            Some(_) => report.ties += 1,
        }
    }
    Ok((pairs, report))
}

/// A row of a file of pairs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    prompt: String,
    chosen: String,
    rejected: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chosen_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected_score: Option<f64>,
}

/// Writes pairs, one a line: `{"prompt", "chosen", "rejected", "chosen_score", "rejected_score"}`, with the names of the
/// pictures. Rows without scores have no fields for them.
///
/// # Errors
/// [`DatasetError::Index`] if a picture is not there, [`DatasetError::Durable`].
pub fn write_pairs(
    path: &Path,
    pictures: &dyn Pictures,
    pairs: &[Pair],
) -> Result<(), DatasetError> {
    let row = |pair: &Pair| {
        Ok(Row {
            prompt: pictures.text(pair.chosen).unwrap_or_default().to_owned(),
            chosen: name_of(pictures, pair.chosen)?.to_owned(),
            rejected: name_of(pictures, pair.rejected)?.to_owned(),
            chosen_score: pair.scores.map(|[chosen, _]| chosen),
            rejected_score: pair.scores.map(|[_, rejected]| rejected),
        })
    };
    let rows = pairs.iter().map(row);
    let rows = rows.collect::<Result<Vec<_>, DatasetError>>()?;
    Ok(write_jsonl(path, &rows)?)
}

/// Reads pairs of the pictures of a dataset, those of other programs or people, too.
///
/// # Errors
/// [`DatasetError::Durable`] if the file cannot be read or a line is not JSON of the right form; [`DatasetError::Field`] if a
/// picture is not in the dataset or its caption is not the prompt, both are the same, the one that was chosen has not the higher score,
/// one score is missing, or two pictures are a pair in another line, either way round.
pub fn read_pairs(path: &Path, pictures: &dyn Pictures) -> Result<Vec<Pair>, DatasetError> {
    let bytes = fs::read(path).map_err(DurableError::io("read", path))?;
    let names = by_name(pictures);
    let mut lines = HashMap::new();
    let mut pairs = Vec::new();
    for (line, row) in (1..).zip(parse_jsonl(path, &bytes)) {
        let row: Row = row?;
        let wrong = |field: &str, expected, found| DatasetError::Field {
            path: path.into(),
            line,
            field: field.to_owned(),
            expected,
            found,
        };
        let picture = |field, name: &str| {
            let Some(&index) = names.get(name) else {
                let expected = "a picture of the dataset";
                return Err(wrong(field, expected, format!("`{name}`")));
            };
            match pictures.text(index) {
                Some(text) if text != row.prompt => {
                    let found = format!("`{name}`, whose caption is {text:?}");
                    Err(wrong(field, "a picture of the prompt", found))
                }
                _ => Ok(index),
            }
        };
        let chosen = picture("chosen", &row.chosen)?;
        let rejected = picture("rejected", &row.rejected)?;
        let scores = match (row.chosen_score, row.rejected_score) {
            (None, None) => None,
            (Some(chosen), Some(rejected)) if chosen > rejected => Some([chosen, rejected]),
            (Some(chosen), Some(rejected)) => {
                let found = format!("{chosen} against {rejected}");
                return Err(wrong("chosen_score", "the higher score", found));
            }
            (None, Some(_)) => {
                return Err(wrong("chosen_score", "a score", "none".to_owned()));
            }
            (Some(_), None) => {
                return Err(wrong("rejected_score", "a score", "none".to_owned()));
            }
        };
        if chosen == rejected {
            let found = format!("`{}`, which was chosen", row.rejected);
            return Err(wrong("rejected", "another picture", found));
        }
        let both = [chosen.min(rejected), chosen.max(rejected)];
        if let Some(first) = lines.insert(both, line) {
            let found = format!("the two of line {first}");
            return Err(wrong("chosen", "two pictures that are no pair yet", found));
        }
        pairs.push(Pair {
            chosen,
            rejected,
            scores,
        });
    }
    Ok(pairs)
}
