//! What requests cost, and where to stop: [`Price`], [`Budget`] and [`Spending`].

use serde::{Deserialize, Serialize};

use crate::{LlmError, Usage};

/// What a server takes for tokens, in any currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Price of a million tokens of requests.
    pub input_per_million: f64,
    /// Price of a million tokens of answers.
    pub output_per_million: f64,
}

impl Price {
    /// What this many tokens cost.
    pub fn cost(&self, usage: &Usage) -> f64 {
        (usage.prompt_tokens as f64 * self.input_per_million
            + usage.completion_tokens as f64 * self.output_per_million)
            / 1e6
    }
}

/// How much a client may use. Answers from a journal use nothing.
///
/// A request is not sent if what has been used and what is expected of it and of those on their way exceed a limit. As
/// nobody knows how long an answer will be, as much as the mean of all answers before is expected, and at first the
/// request's own length: the last answers may go over a limit by what they are longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Most tokens of requests and answers together. Default: no limit.
    pub tokens: Option<u64>,
    /// Most money, in the currency of the [`Price`]. Default: no limit.
    pub cost: Option<f64>,
}

/// What a client has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// Answers received.
    pub answers: u64,
    /// Tokens used.
    pub usage: Usage,
    /// Money, if the [`Price`] is known; else 0.
    pub cost: f64,
    /// Answers without a count of tokens; theirs are estimated, at four bytes a token.
    pub estimated: u64,
}

/// Keeps account of a client's requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    price: Price,
    budget: Budget,
    spent: Spending,
    /// Tokens that requests on their way are expected to use.
    reserved: u64,
}

impl Ledger {
    pub(crate) fn new(price: Option<Price>, budget: Budget) -> Self {
        Self {
            price: price.unwrap_or_default(),
            budget,
            spent: Spending::default(),
            reserved: 0,
        }
    }

    pub(crate) fn spent(&self) -> Spending {
        self.spent
    }

    /// Allows a request of about this many tokens, and returns how many it is expected to use with its answer.
    pub(crate) fn reserve(&mut self, request_tokens: u64) -> Result<u64, LlmError> {
        let used = self.spent.usage.total_tokens();
        let mean = used.checked_div(self.spent.answers);
        let expected = mean.unwrap_or(0).max(request_tokens);
        let check = |unit, used: f64, expected: f64, limit: f64| {
            if used + expected <= limit {
                return Ok(());
            }
            Err(LlmError::Budget {
                unit,
                used,
                expected,
                limit,
            })
        };
        let coming = expected.saturating_add(self.reserved);
        if let Some(limit) = self.budget.tokens {
            check("tokens", used as f64, coming as f64, limit as f64)?;
        }
        if let Some(limit) = self.budget.cost {
            let each = match used {
                0 => self.price.input_per_million / 1e6,
                _ => self.spent.cost / used as f64,
            };
            check(
                "units of money",
                self.spent.cost,
                each * coming as f64,
                limit,
            )?;
        }
        self.reserved = coming;
        Ok(expected)
    }

    /// A request that was allowed has failed: it uses nothing.
    pub(crate) fn release(&mut self, expected: u64) {
        self.reserved = self.reserved.saturating_sub(expected);
    }

    /// A request that was allowed has been answered.
    pub(crate) fn settle(&mut self, expected: u64, usage: Usage, estimated: bool) {
        self.release(expected);
        self.spent.answers += 1;
        self.spent.usage += usage;
        self.spent.cost += self.price.cost(&usage);
        self.spent.estimated += u64::from(estimated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        prompt_tokens: 60,
        completion_tokens: 40,
    };

    #[test]
    fn a_price_is_for_a_million() {
        let price = Price {
            input_per_million: 2.0,
            output_per_million: 10.0,
        };
        let usage = Usage {
            prompt_tokens: 1_000_000,
            completion_tokens: 500_000,
        };
        assert_eq!(price.cost(&usage), 7.0);
        assert_eq!(price.cost(&Usage::default()), 0.0);
    }

    #[test]
    fn tokens_run_out_before_they_are_exceeded() {
        let budget = Budget {
            tokens: Some(350),
            cost: None,
        };
        let mut ledger = Ledger::new(None, budget);
        for _ in 0..3 {
            let expected = ledger.reserve(10).unwrap();
            ledger.settle(expected, USAGE, false);
        }
        assert_eq!(
            ledger.reserve(10).unwrap_err().to_string(),
            "the budget of 350 tokens is used up: 300 are used, and what is asked next is expected to take 100"
        );
        assert_eq!((ledger.spent().answers, ledger.spent().cost), (3, 0.0));
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let budget = Budget {
            tokens: Some(350),
            cost: None,
        };
        let mut ledger = Ledger::new(None, budget);
        // Nothing is known yet but the length of the requests.
        assert_eq!(ledger.reserve(200).unwrap(), 200);
        assert!(ledger.reserve(200).is_err());
        ledger.settle(200, USAGE, true);
        assert_eq!(ledger.reserve(10).unwrap(), 100);
        assert_eq!(ledger.reserve(10).unwrap(), 100);
        assert!(ledger.reserve(10).is_err());
        ledger.release(100);
        assert!(ledger.reserve(10).is_ok());
        assert_eq!(ledger.spent().estimated, 1);
    }

    #[test]
    fn money_runs_out_too() {
        let price = Price {
            input_per_million: 1e4,
            output_per_million: 1e4,
        };
        let budget = Budget {
            tokens: None,
            cost: Some(2.5),
        };
        let mut ledger = Ledger::new(Some(price), budget);
        for _ in 0..2 {
            let expected = ledger.reserve(10).unwrap();
            ledger.settle(expected, USAGE, false);
        }
        assert_eq!(
            ledger.reserve(10).unwrap_err().to_string(),
            "the budget of 2.5 units of money is used up: 2 are used, and what is asked next is expected to take 1"
        );
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let budget = Budget {
            tokens: Some(0),
            cost: None,
        };
        assert!(Ledger::new(None, budget).reserve(1).is_err());
    }
}
