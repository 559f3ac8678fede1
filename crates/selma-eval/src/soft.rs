//! The soft score: probabilities of "yes" instead of answers.

use serde::{Deserialize, Serialize};

use crate::{
    EvalError, ItemResult, YesProbability,
    stats::{Bootstrap, Cluster, Estimate},
};

/// The mean of [`YesProbability::probability`]: VQAScore over the questions instead of the prompt, without dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftScore {
    /// The mean over the questions that have a probability, between 0 and 1; its clusters are their items.
    pub estimate: Estimate,
    /// How many have one.
    pub questions: usize,
    /// Mean of [`YesProbability::coverage`] over them.
    pub coverage: f64,
}

impl SoftScore {
    /// The soft score, if any question has a probability.
    pub(crate) fn of(
        items: &[ItemResult],
        bootstrap: &Bootstrap,
    ) -> Result<Option<Self>, EvalError> {
        let likely = |item: &ItemResult| -> Vec<YesProbability> {
            item.questions
                .iter()
                .filter_map(|asked| asked.yes)
                .collect()
        };
        let likely: Vec<Vec<YesProbability>> = items
            .iter()
            .map(likely)
            .filter(|likely| !likely.is_empty())
            .collect();
        if likely.is_empty() {
            return Ok(None);
        }
        let clusters: Vec<Cluster> = likely
            .iter()
            .map(|likely| Cluster {
                sum: likely.iter().map(|yes| yes.probability).sum(),
                count: u32::try_from(likely.len()).unwrap_or(u32::MAX),
            })
            .collect();
        let questions = likely.iter().flatten().count();
        let coverage: f64 = likely.iter().flatten().map(|yes| yes.coverage).sum();
        Ok(Some(Self {
            estimate: bootstrap.estimate(&clusters)?,
            questions,
            coverage: coverage / questions as f64,
        }))
    }
}
