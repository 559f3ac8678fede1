//! What the answers say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    Choice, Preference, Ratings,
    outcome::{Vote, by_prompt, clusters},
};
use crate::{
    Bootstrap, EvalError, Estimate,
    stats::{Coincidences, bradley_terry, holm},
};

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

impl RatingResult {
    pub(super) fn of(ratings: &Ratings, bootstrap: &Bootstrap) -> Result<Self, EvalError> {
        bootstrap.validate()?;
        let votes = ratings.votes();
        if votes.is_empty() {
            return Err(EvalError::Empty { what: "answers" });
        }
        let prompts = by_prompt(&votes);
        let pairs: BTreeSet<(usize, usize)> = votes.iter().map(|vote| vote.pair).collect();
        let raters = raters(ratings);
        let left = clusters(&prompts, |vote| match vote.choice {
            Choice::Left => Some(1.0),
            Choice::Right => Some(0.0),
            Choice::Tie => None,
        });
        Ok(Self {
            bootstrap: *bootstrap,
            studies: ratings.keys.iter().map(|key| key.study.clone()).collect(),
            models: ratings.models.clone(),
            superseded: ratings.superseded.clone(),
            prompts: prompts.len(),
            pairs: pairs.len(),
            answers: votes.len(),
            unanswered: raters.iter().map(|rater| rater.unanswered).sum(),
            raters,
            left: if left.is_empty() {
                None
            } else {
                Some(bootstrap.estimate(&left)?)
            },
            comparisons: comparisons(&ratings.models, &votes, bootstrap)?,
            agreement: agreement(&prompts, bootstrap)?,
            ranking: ranking(&ratings.models, &prompts, bootstrap)?,
        })
    }
}

/// One row for each rater; one who took part in several studies has their sum.
fn raters(ratings: &Ratings) -> Vec<RaterCount> {
    let mut raters: Vec<RaterCount> = Vec::new();
    for (study, file) in &ratings.files {
        let shown = ratings.keys.get(*study).map_or(0, |key| key.pairs.len());
        let answers = file.answers.len();
        let unanswered = shown.saturating_sub(answers);
        match raters.iter_mut().find(|rater| rater.rater == file.rater) {
            Some(rater) => {
                rater.answers += answers;
                rater.unanswered += unanswered;
            }
            None => raters.push(RaterCount {
                rater: file.rater.clone(),
                name: file.name.clone(),
                answers,
                unanswered,
            }),
        }
    }
    raters
}

fn comparisons(
    models: &[String],
    votes: &[Vote<'_>],
    bootstrap: &Bootstrap,
) -> Result<Vec<Comparison>, EvalError> {
    let mut comparisons = Vec::new();
    for (a, first) in models.iter().enumerate() {
        for (b, second) in models.iter().enumerate().skip(a + 1) {
            let between: Vec<&Vote<'_>> = votes
                .iter()
                .filter(|vote| (vote.first, vote.second) == (a, b))
                .collect();
            if between.is_empty() {
                continue;
            }
            comparisons.push(Comparison {
                first: first.clone(),
                second: second.clone(),
                overall: Preference::of(&between, bootstrap)?,
                by_category: by_category(&between, bootstrap)?,
            });
        }
    }
    Ok(comparisons)
}

fn by_category(
    votes: &[&Vote<'_>],
    bootstrap: &Bootstrap,
) -> Result<BTreeMap<String, CategoryPreference>, EvalError> {
    let mut categories: BTreeMap<&str, Vec<&Vote<'_>>> = BTreeMap::new();
    for vote in votes {
        if let Some(category) = vote.category {
            categories.entry(category).or_default().push(vote);
        }
    }
    let preferences = categories
        .values()
        .map(|votes| Preference::of(votes, bootstrap))
        .collect::<Result<Vec<Preference>, EvalError>>()?;
    let p_values: Vec<f64> = preferences.iter().map(|preference| preference.p).collect();
    let rows = categories.into_keys().zip(preferences).zip(holm(&p_values)?);
    Ok(rows
        .map(|((name, preference), p_holm)| {
            let row = CategoryPreference { preference, p_holm };
            (name.to_owned(), row)
        })
        .collect())
}

fn agreement(
    prompts: &[Vec<&Vote<'_>>],
    bootstrap: &Bootstrap,
) -> Result<Option<Agreement>, EvalError> {
    let (mut pairs, mut answers) = (0, 0);
    let mut of_prompts = Vec::with_capacity(prompts.len());
    for votes in prompts {
        let mut labels: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for vote in votes {
            labels.entry(vote.pair).or_default().push(vote.choice as usize);
        }
        labels.retain(|_, labels| labels.len() > 1);
        let mut coincidences = Coincidences::default();
        for labels in labels.values() {
            pairs += 1;
            answers += labels.len();
            coincidences.add_unit(labels);
        }
        if !labels.is_empty() {
            of_prompts.push(coincidences);
        }
    }
    let sum = |picked: &mut dyn Iterator<Item = &Coincidences>| {
        let mut sum = Coincidences::default();
        picked.for_each(|coincidences| sum.add(coincidences));
        sum
    };
    let all = sum(&mut of_prompts.iter());
    let Some((alpha, agreement)) = all.alpha().zip(all.agreement()) else {
        return Ok(None);
    };
    let alpha_of = |picked: &[usize]| {
        let mut picked = picked.iter().filter_map(|&index| of_prompts.get(index));
        sum(&mut picked).alpha()
    };
    let interval = bootstrap.interval(of_prompts.len(), alpha_of)?;
    Ok(interval.map(|interval| Agreement {
        alpha,
        low: interval.low,
        high: interval.high,
        agreement,
        pairs,
        answers,
    }))
}

fn ranking(
    models: &[String],
    prompts: &[Vec<&Vote<'_>>],
    bootstrap: &Bootstrap,
) -> Result<Option<Ranking>, EvalError> {
    if models.len() < 3 {
        return Ok(None);
    }
    let strengths = |picked: &[usize]| {
        let mut wins = vec![vec![0.0; models.len()]; models.len()];
        let mut add = |winner: usize, loser: usize, points: f64| {
            if let Some(count) = wins.get_mut(winner).and_then(|row| row.get_mut(loser)) {
                *count += points;
            }
        };
        let votes = picked.iter().filter_map(|&index| prompts.get(index)).flatten();
        for vote in votes {
            add(vote.first, vote.second, vote.points());
            add(vote.second, vote.first, 1.0 - vote.points());
        }
        bradley_terry(&wins).ok()
    };
    let all: Vec<usize> = (0..prompts.len()).collect();
    let resampled = bootstrap.intervals(prompts.len(), strengths)?;
    let Some((strengths, resampled)) = strengths(&all).zip(resampled) else {
        return Ok(None);
    };
    let answers = |model: usize| {
        let votes = prompts.iter().flatten();
        votes.filter(|vote| vote.first == model || vote.second == model).count()
    };
    let rows = models.iter().zip(strengths).zip(&resampled.intervals);
    let mut rows: Vec<Strength> = rows
        .enumerate()
        .map(|(index, ((model, strength), interval))| Strength {
            model: model.clone(),
            strength,
            low: interval.low,
            high: interval.high,
            answers: answers(index),
        })
        .collect();
    rows.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    Ok(Some(Ranking {
        models: rows,
        undefined_resamples: resampled.undefined,
    }))
}
