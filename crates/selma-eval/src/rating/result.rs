//! What the answers say.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Preference;
use crate::{Bootstrap, Estimate};

/// The result of a study with people, or of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingResult {
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// Ids of the studies.
    pub studies: Vec<String>,
    /// The models, in the order of the keys.
    pub models: Vec<String>,
    /// Who has answered how much.
    pub raters: Vec<RaterCount>,
    /// Files that do not count, because their rater saved again later or they are copies.
    pub superseded: Vec<PathBuf>,
    /// Different prompts that were answered.
    pub prompts: usize,
    /// Pairs of pictures that were answered.
    pub pairs: usize,
    /// Answers that count.
    pub answers: usize,
    /// Pairs that a rater was shown and left open.
    pub unanswered: usize,
    /// Share of the answers without ties that prefer the picture on the left; `None` if all are ties. Far from a half, raters
    /// looked at the side and not at the pictures.
    pub left: Option<Estimate>,
    /// Every two models that were compared.
    pub comparisons: Vec<Comparison>,
    /// How far raters agree; `None` if no pair was answered by two, or all answers are the same.
    pub agreement: Option<Agreement>,
    /// Strengths of more than two models; `None` for two, and if the models can be divided so that none of one part ever won
    /// or tied against the other: there is no bound to how much stronger the others are.
    pub ranking: Option<Ranking>,
}

/// How much a rater has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaterCount {
    /// The rater's id.
    pub rater: String,
    /// What the rater wants to be called; may be empty.
    pub name: String,
    /// Pairs answered.
    pub answers: usize,
    /// Pairs left open.
    pub unanswered: usize,
}

/// Two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The model whose wins are counted.
    pub first: String,
    /// The other.
    pub second: String,
    /// Over all prompts.
    pub overall: Preference,
    /// By skill or source, for prompts that have one.
    pub by_category: BTreeMap<String, CategoryPreference>,
}

/// Two models in one of several categories.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryPreference {
    /// As if the category were the only one.
    pub preference: Preference,
    /// Its p-value after Holm's correction for the number of categories.
    pub p_holm: f64,
}

/// How far raters agree on the pairs that two or more of them have answered. The labels are what they saw and said: left,
/// tie or right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Krippendorff's alpha, nominal: 1 is agreement throughout, 0 that of chance.
    pub alpha: f64,
    /// Lower end of the interval of alpha, over resampled prompts.
    pub low: f64,
    /// Upper end of the interval of alpha.
    pub high: f64,
    /// Share of the pairs of answers to one pair of pictures that are the same.
    pub agreement: f64,
    /// Pairs of pictures with two answers or more.
    pub pairs: usize,
    /// Their answers.
    pub answers: usize,
}

/// Strengths by the Bradley-Terry model, a tie being half a win for both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranking {
    /// The models, strongest first.
    pub models: Vec<Strength>,
    /// Resamples in which there are no strengths; the intervals are those of the others, and too narrow if there are many.
    pub undefined_resamples: u32,
}

/// The strength of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strength {
    /// The model.
    pub model: String,
    /// Natural logarithm; the sum over models is zero. One model is preferred to another with the odds `exp(difference)`.
    pub strength: f64,
    /// Lower end of the interval, over resampled prompts.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Answers about the model.
    pub answers: usize,
}
