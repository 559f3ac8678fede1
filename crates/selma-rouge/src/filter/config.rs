//! Settings of the filter.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{RougeError, Tokenizer};

/// Settings of a [`DiversityFilter`](crate::DiversityFilter).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// A text is rejected if its ROUGE-L F with a kept one is greater than this; over 0 and at most 1, where every text
    /// is kept. Default 0.8, as in SELMA; Self-Instruct has 0.7.
    pub threshold: f64,
    /// Weight of recall in F, see [`Score::f_beta`](crate::Score::f_beta); 0 to 1000. The kept text is the target.
    /// Default 1.
    pub beta: f64,
    /// How texts become tokens. Default `rouge`.
    pub tokenizer: Tokenizer,
    /// What becomes of texts without tokens. Default `keep`.
    pub without_tokens: WithoutTokens,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            threshold: 0.8,
            beta: 1.0,
            tokenizer: Tokenizer::default(),
            without_tokens: WithoutTokens::default(),
        }
    }
}

impl FilterConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RougeError::Threshold`] and [`RougeError::Beta`] for a value out of its range.
    pub fn validate(&self) -> Result<(), RougeError> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return Err(RougeError::Threshold {
                found: self.threshold,
            });
        }
        if !(0.0..=1000.0).contains(&self.beta) {
            return Err(RougeError::Beta { found: self.beta });
        }
        Ok(())
    }
}

/// What a [`DiversityFilter`](crate::DiversityFilter) does with a text that has no tokens, and so scores zero against
/// everything, its own copy included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutTokens {
    /// Keeps it always, as a filter built on `rouge_score` does.
    #[default]
    Keep,
    /// Keeps it once: a text without tokens that equals a kept one, byte for byte, is rejected with the score 1.
    Distinct,
}

impl FromStr for WithoutTokens {
    type Err = RougeError;

    fn from_str(name: &str) -> Result<Self, RougeError> {
        match name {
            "keep" => Ok(Self::Keep),
            "distinct" => Ok(Self::Distinct),
            _ => Err(RougeError::UnknownWithoutTokens { found: name.into() }),
        }
    }
}
