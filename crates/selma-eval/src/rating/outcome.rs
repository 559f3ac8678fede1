//! One answer, with what it is about.

use std::collections::BTreeMap;

use super::Choice;
use crate::stats::Cluster;

/// An answer as a match of two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vote<'a> {
    /// The prompt: the unit that is independent of others.
    pub(super) text: &'a str,
    /// Its skill or source.
    pub(super) category: Option<&'a str>,
    /// The model that comes first in the list of models, by its position there.
    pub(super) first: usize,
    /// The other.
    pub(super) second: usize,
    /// Who won.
    pub(super) outcome: Outcome,
    /// Which two pictures: the study and the pair in it.
    pub(super) pair: (usize, usize),
    /// What the rater saw and said.
    pub(super) choice: Choice,
}

/// Who won a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The first model.
    First,
    /// Neither.
    Tie,
    /// The second.
    Second,
}

impl Vote<'_> {
    /// What the first model won: 1, a half for a tie, or 0.
    pub(super) fn points(&self) -> f64 {
        match self.outcome {
            Outcome::First => 1.0,
            Outcome::Tie => 0.5,
            Outcome::Second => 0.0,
        }
    }
}

/// The votes prompt by prompt, in the order of the texts.
pub(super) fn by_prompt<'a, 'v>(
    votes: impl IntoIterator<Item = &'v Vote<'a>>,
) -> Vec<Vec<&'v Vote<'a>>>
where
    'a: 'v,
{
    let mut prompts: BTreeMap<&str, Vec<&Vote<'a>>> = BTreeMap::new();
    for vote in votes {
        prompts.entry(vote.text).or_default().push(vote);
    }
    prompts.into_values().collect()
}

/// One cluster for each prompt that has values: their sum and number.
pub(super) fn clusters<'a, 'v>(
    prompts: &[Vec<&'v Vote<'a>>],
    value: impl Fn(&Vote<'a>) -> Option<f64>,
) -> Vec<Cluster> {
    let of = |votes: &Vec<&Vote<'a>>| {
        let empty = Cluster { sum: 0.0, count: 0 };
        let values = votes.iter().filter_map(|vote| value(vote));
        values.fold(empty, |cluster, value| Cluster {
            sum: cluster.sum + value,
            count: cluster.count + 1,
        })
    };
    let clusters = prompts.iter().map(of);
    clusters.filter(|cluster| cluster.count > 0).collect()
}
