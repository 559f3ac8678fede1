//! The rounds of a recipe, one below the other.

use selma_eval::{Estimate, Paired};

use super::{escape, markdown::rows_of, number};

/// What each round has gained.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundTable {
    /// The rounds in order.
    pub rows: Vec<RoundRow>,
}

/// One round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundRow {
    /// Counted from 1.
    pub round: usize,
    /// The score of what it began with, a share between 0 and 1.
    pub base: Estimate,
    /// The score of what it leaves.
    pub carried: Estimate,
    /// The second minus the first, paired by prompt.
    pub difference: Paired,
    /// The same to what the first round began with.
    pub since_first: Paired,
}

impl RoundTable {
    /// A Markdown table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let head = [
            "round",
            "base",
            "merged",
            "vs its base",
            "vs the first base",
        ];
        let rows = self.rows.iter().map(|row| {
            vec![
                row.round.to_string(),
                number::percent(row.base.mean),
                number::percent(row.carried.mean),
                escape::markdown(&number::difference(&row.difference)),
                escape::markdown(&number::difference(&row.since_first)),
            ]
        });
        rows_of(&head.map(str::to_owned), rows) + "\n"
    }
}
