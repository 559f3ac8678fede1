//! How often one model is preferred to another.

use serde::{Deserialize, Serialize};

use super::outcome::{Outcome, Vote, by_prompt, clusters};
use crate::{Bootstrap, Estimate, EvalError, stats::permutation::sign_flip};

/// What the answers say of two models. Intervals are over resampled prompts: the answers of several raters to one prompt are
/// not independent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Answers that prefer the first model.
    pub wins: usize,
    /// Answers that prefer neither.
    pub ties: usize,
    /// Answers that prefer the second.
    pub losses: usize,
    /// Share of the answers that prefer the first model, ties counting half.
    pub rate: Estimate,
    /// The same share without ties, wins / (wins + losses), as the SELMA paper reports it; `None` if all are ties.
    pub decided: Option<Estimate>,
    /// Two-sided p-value of the permutation test that exchanges the two models prompt by prompt: is either preferred?
    pub p: f64,
}

impl Preference {
    /// # Errors
    /// [`EvalError::Empty`] without votes, [`EvalError::Setting`].
    pub(super) fn of(votes: &[&Vote<'_>], bootstrap: &Bootstrap) -> Result<Self, EvalError> {
        let prompts = by_prompt(votes.iter().copied());
        let count = |outcome| votes.iter().filter(|vote| vote.outcome == outcome).count();
        let decided = clusters(&prompts, |vote| {
            (vote.outcome != Outcome::Tie).then(|| vote.points())
        });
        let lead = clusters(&prompts, |vote| Some(2.0 * vote.points() - 1.0));
        Ok(Self {
            wins: count(Outcome::First),
            ties: count(Outcome::Tie),
            losses: count(Outcome::Second),
            rate: bootstrap.estimate(&clusters(&prompts, |vote| Some(vote.points())))?,
            decided: if decided.is_empty() {
                None
            } else {
                Some(bootstrap.estimate(&decided)?)
            },
            p: sign_flip(&lead, bootstrap.resamples, bootstrap.seed),
        })
    }
}
