//! From answers to the result.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Agreement, CategoryPreference, Choice, Comparison, Preference, Ranking, RaterCount,
    RatingResult, Ratings, Strength,
    outcome::{Vote, by_prompt, clusters},
};
use crate::{
    Bootstrap, EvalError,
    stats::{Coincidences, bradley_terry, holm},
};

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
    let rows = categories
        .into_keys()
        .zip(preferences)
        .zip(holm(&p_values)?);
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
            labels
                .entry(vote.pair)
                .or_default()
                .push(vote.choice as usize);
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
        let votes = picked
            .iter()
            .filter_map(|&index| prompts.get(index))
            .flatten();
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
        votes
            .filter(|vote| vote.first == model || vote.second == model)
            .count()
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
