//! What the filter says about a text.

use crate::Score;

/// The kept text that is closest to another text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Number of the kept text, see [`DiversityFilter::get`](crate::DiversityFilter::get).
    pub id: usize,
    /// ROUGE-L with the kept text as target and the other text as prediction.
    pub score: Score,
}

impl Nearest {
    /// The closer of the two; of equals the one that was kept first.
    pub(super) fn or_closer(self, other: Self) -> Self {
        let (old, new) = (self.score.fmeasure, other.score.fmeasure);
        if new > old || (new == old && other.id < self.id) {
            other
        } else {
            self
        }
    }
}

/// What a [`DiversityFilter`](crate::DiversityFilter) decided about a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The text was kept.
    Kept {
        /// Its number, counted from 0.
        id: usize,
    },
    /// The text was rejected, and the filter is unchanged.
    Rejected {
        /// The closest of the kept texts.
        nearest: Nearest,
    },
}

impl Verdict {
    /// Whether the text was kept.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// The closest of the kept texts, if the text was rejected.
    pub fn nearest(&self) -> Option<Nearest> {
        match *self {
            Self::Kept { .. } => None,
            Self::Rejected { nearest } => Some(nearest),
        }
    }
}
