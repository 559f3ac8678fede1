//! The settings of the generation loop: [`PromptConfig`].

use selma_rouge::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::{BlockList, LlmError, Strategy};

/// How many prompts are wanted and how they are made. The defaults are the paper's (section 3.1 and appendix H, and the
/// released `llm/prompt_generation.py`), except where noted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Prompts to accept. Default 1000. The paper's code may overshoot; this one does with the strategy `selma-official` only.
    pub count: usize,
    /// What requests show and ask for. Default `pool`, which is the paper's with its faults mended.
    pub strategy: Strategy,
    /// Requests made on one state of the pool. Default 1, and 5 with `selma-official`, as in the paper's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_batch_size: Option<usize>,
    /// Examples in each request, drawn without replacement; all there are while the pool is smaller. Default 3.
    pub examples: usize,
    /// A prompt is rejected if its ROUGE-L F with a seed or an accepted prompt is greater. In (0, 1], default 0.8.
    pub threshold: f64,
    /// How prompts become words for ROUGE-L. Default `rouge`.
    pub tokenizer: Tokenizer,
    /// Whether prompts with more words than the skill's `max_words` are rejected. Default true; the paper's code only
    /// asks the LLM for short ones, and so does `selma-official`.
    pub enforce_max_words: bool,
    /// A prompt is rejected as an echo of the instruction if its ROUGE-L F with a line of it is greater. In (0, 1], default
    /// 0.5; at 1 none is. Weak models repeat the rules instead of following them, and what is accepted is shown to them again.
    /// Captions share little more than `the` and `of` with a rule. Without effect on `selma-official`.
    pub instruction_threshold: f64,
    /// Terms that no prompt may have. Default none.
    pub block_list: BlockList,
    /// Whether prompts that name an artist are rejected; see [`NameFinder::artist`](crate::NameFinder::artist). Default false.
    pub drop_named_artists: bool,
    /// Sampling temperature. Default 1.0.
    pub temperature: f64,
    /// Nucleus sampling mass in (0, 1]. Default 1.0.
    pub top_p: f64,
    /// Most tokens of an answer. Default 3072.
    pub max_tokens: u32,
    /// Seed of the examples' draw and, sent along, of the LLM's sampling. Default 0.
    pub seed: u64,
    /// Requests in a row without a new prompt after which the loop gives up. Default 20; the paper's code never does.
    pub max_stalled_requests: u32,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            count: 1000,
            strategy: Strategy::Pool,
            request_batch_size: None,
            examples: 3,
            threshold: 0.8,
            tokenizer: Tokenizer::Rouge,
            enforce_max_words: true,
            instruction_threshold: 0.5,
            block_list: BlockList::default(),
            drop_named_artists: false,
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 3072,
            seed: 0,
            max_stalled_requests: 20,
        }
    }
}

impl PromptConfig {
    /// Requests made on one state of the pool.
    pub(crate) fn batch_size(&self) -> usize {
        let usual = self.strategy.request_batch_size();
        self.request_batch_size.unwrap_or(usual)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`LlmError::Config`] names the first field that cannot be used.
    pub fn validate(&self) -> Result<(), LlmError> {
        let check = |good: bool, field, expected: &str, found: &dyn std::fmt::Display| {
            if good {
                return Ok(());
            }
            Err(LlmError::Config {
                field,
                reason: format!("must be {expected}, found {found}"),
            })
        };
        check(self.count > 0, "count", "at least 1", &self.count)?;
        let batch = self.batch_size();
        check(batch > 0, "request_batch_size", "at least 1", &batch)?;
        check(self.examples > 0, "examples", "at least 1", &self.examples)?;
        check(
            self.threshold > 0.0 && self.threshold <= 1.0,
            "threshold",
            "greater than 0 and at most 1",
            &self.threshold,
        )?;
        check(
            self.instruction_threshold > 0.0 && self.instruction_threshold <= 1.0,
            "instruction_threshold",
            "greater than 0 and at most 1",
            &self.instruction_threshold,
        )?;
        check(
            self.temperature >= 0.0 && self.temperature.is_finite(),
            "temperature",
            "at least 0 and finite",
            &self.temperature,
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            "greater than 0 and at most 1",
            &self.top_p,
        )?;
        check(
            self.max_tokens > 0,
            "max_tokens",
            "at least 1",
            &self.max_tokens,
        )?;
        check(
            self.max_stalled_requests > 0,
            "max_stalled_requests",
            "at least 1",
            &self.max_stalled_requests,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_paper_s_and_valid() {
        let config: PromptConfig = toml::from_str("").unwrap();
        assert_eq!(config, PromptConfig::default());
        config.validate().unwrap();
        assert_eq!(
            (config.count, config.examples, config.threshold),
            (1000, 3, 0.8)
        );
        let config: PromptConfig = toml::from_str("tokenizer = \"unicode\"\nseed = 7").unwrap();
        assert_eq!((config.tokenizer, config.seed), (Tokenizer::Unicode, 7));
        assert_eq!(config.batch_size(), 1);
    }

    #[test]
    fn settings_survive_toml() {
        let toml =
            "strategy = \"selma-official\"\nblock_list = [\"gore\"]\ndrop_named_artists = true";
        let config: PromptConfig = toml::from_str(toml).unwrap();
        assert_eq!(config.strategy, Strategy::SelmaOfficial);
        assert_eq!(config.batch_size(), 5);
        assert_eq!(config.block_list.terms(), ["gore"]);
        let again = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<PromptConfig>(&again).unwrap(), config);
        for (toml, expected) in [
            ("strategy = \"alpaca\"", "unknown variant `alpaca`"),
            ("block_list = [\"  \"]", "has no word"),
        ] {
            let error = toml::from_str::<PromptConfig>(toml).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<PromptConfig>("treshold = 0.7").unwrap_err();
        assert!(error.message().contains("unknown field `treshold`"));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (toml, expected) in [
            ("count = 0", "setting `count` must be at least 1, found 0"),
            (
                "request_batch_size = 0",
                "setting `request_batch_size` must be at least 1, found 0",
            ),
            (
                "examples = 0",
                "setting `examples` must be at least 1, found 0",
            ),
            (
                "threshold = 1.5",
                "setting `threshold` must be greater than 0 and at most 1, found 1.5",
            ),
            (
                "threshold = nan",
                "setting `threshold` must be greater than 0 and at most 1, found NaN",
            ),
            (
                "instruction_threshold = 0.0",
                "setting `instruction_threshold` must be greater than 0 and at most 1, found 0",
            ),
            (
                "temperature = inf",
                "setting `temperature` must be at least 0 and finite, found inf",
            ),
            (
                "top_p = 0.0",
                "setting `top_p` must be greater than 0 and at most 1, found 0",
            ),
            (
                "max_tokens = 0",
                "setting `max_tokens` must be at least 1, found 0",
            ),
            (
                "max_stalled_requests = 0",
                "setting `max_stalled_requests` must be at least 1, found 0",
            ),
        ] {
            let config: PromptConfig = toml::from_str(toml).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        }
    }
}
