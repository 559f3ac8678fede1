//! What a request shows and asks for: [`Strategy`].

mod cycle;
mod stratified;
mod taxonomy;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use stratified::Attributes;
pub use taxonomy::Topics;

use crate::{LlmError, Parser, Skill};
use cycle::Cycle;

/// How an LLM is asked for more prompts. In configuration files and on command lines the names are `pool`, `seeds`,
/// `stratified`, `taxonomy` and `selma-official`.
///
/// All of them show [`PromptConfig::examples`](crate::PromptConfig::examples) captions drawn at random; they differ in what these
/// are drawn from and in what is asked for besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Examples from the seeds and all accepted prompts (SELMA, section 3.1).
    #[default]
    Pool,
    /// Examples from the seeds alone, as in Alpaca's `generate_instruction.py`: the style stays close to the seeds.
    Seeds,
    /// Examples as with `pool`; each request names combinations of attributes, one for each prompt that it asks for, so that
    /// all values of all attributes occur equally often. They are the skill's [`Attributes`], else built-in ones.
    Stratified,
    /// Examples as with `pool`; each request names one topic. The topics are the skill's [`Topics`], else built-in ones.
    Taxonomy,
    /// The loop of `llm/prompt_generation.py` to the letter: [`Parser::SelmaOfficial`], five requests on one state of the
    /// pool, the target looked at between such batches only (so there may be more prompts than wanted), no limits of length and
    /// script, no look at why an answer ended, no check for repetitions besides the filter.
    SelmaOfficial,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pool,
        Self::Seeds,
        Self::Stratified,
        Self::Taxonomy,
        Self::SelmaOfficial,
    ];

    /// The name used in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Seeds => "seeds",
            Self::Stratified => "stratified",
            Self::Taxonomy => "taxonomy",
            Self::SelmaOfficial => "selma-official",
        }
    }

    /// One line for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::Pool => "examples from the seeds and all accepted prompts (SELMA)",
            Self::Seeds => "examples from the seeds alone (Alpaca)",
            Self::Stratified => "as pool, and each prompt gets a combination of attributes",
            Self::Taxonomy => "as pool, and each request gets a topic",
            Self::SelmaOfficial => "SELMA's released code to the letter",
        }
    }

    /// How answers are read.
    pub fn parser(self) -> Parser {
        match self {
            Self::SelmaOfficial => Parser::SelmaOfficial,
            _ => Parser::Tolerant,
        }
    }

    /// How many requests are made on one state of the pool, unless the settings say otherwise: the paper's code sends five
    /// prompts together.
    pub(crate) fn request_batch_size(self) -> usize {
        match self {
            Self::SelmaOfficial => 5,
            _ => 1,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Strategy {
    type Err = LlmError;

    fn from_str(name: &str) -> Result<Self, LlmError> {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| LlmError::Config {
            field: "strategy",
            reason: format!(
                "must be one of {}, found '{name}'",
                Self::ALL.map(Self::name).join(", ")
            ),
        })
    }
}

/// What a strategy asks for besides prompts like the examples.
#[derive(Debug, Clone)]
pub(crate) enum Focus {
    Nothing,
    Combinations(Attributes, Cycle),
    Topics(Vec<String>, Cycle),
}

impl Focus {
    /// `random` decides where the round through all combinations or topics begins.
    pub(crate) fn new(strategy: Strategy, skill: &Skill, random: u64) -> Result<Self, LlmError> {
        Ok(match strategy {
            Strategy::Pool | Strategy::Seeds | Strategy::SelmaOfficial => Self::Nothing,
            Strategy::Stratified => {
                let attributes = match &skill.attributes {
                    Some(attributes) => attributes.clone(),
                    None => Attributes::builtin()?,
                };
                let cycle = Cycle::new(attributes.combinations(), random);
                Self::Combinations(attributes, cycle)
            }
            Strategy::Taxonomy => {
                let topics = match &skill.topics {
                    Some(topics) => topics.clone(),
                    None => Topics::builtin(&skill.name)?,
                };
                let leaves = topics.leaves();
                let cycle = Cycle::new(leaves.len() as u64, random);
                Self::Topics(leaves, cycle)
            }
        })
    }

    /// The sentence for a request that asks for `count` prompts. It depends on nothing but the request's number, and must not
    /// have the word "example", which announces the list that follows.
    pub(crate) fn sentence(&self, request: u64, count: usize) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Combinations(attributes, cycle) => {
                let count = count as u64;
                let combinations: Vec<String> = (0..count)
                    .map(|k| cycle.at(request.wrapping_mul(count).wrapping_add(k)))
                    .map(|index| attributes.combination(index))
                    .collect();
                Some(format!(
                    "Each image description should show one of these combinations, in this order: {}.",
                    combinations.join("; ")
                ))
            }
            Self::Topics(leaves, cycle) => {
                let leaf = leaves.get(usize::try_from(cycle.at(request)).ok()?)?;
                Some(format!(
                    "All image descriptions should be about this topic: {leaf}."
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse::<Strategy>().unwrap(), strategy);
            let json = serde_json::to_string(&strategy).unwrap();
            assert_eq!(json, format!("\"{strategy}\""));
            assert!(!strategy.description().is_empty());
        }
        assert_eq!(
            "alpaca".parse::<Strategy>().unwrap_err().to_string(),
            "setting `strategy` must be one of pool, seeds, stratified, taxonomy, selma-official, found 'alpaca'"
        );
    }

    #[test]
    fn sentences_depend_on_the_request_alone() {
        let skill = Skill::builtin("coco").unwrap();
        for strategy in Strategy::ALL {
            let focus = Focus::new(strategy, &skill, 7).unwrap();
            let sentences: Vec<_> = (0..50).map(|request| focus.sentence(request, 4)).collect();
            let again: Vec<_> = (0..50).map(|request| focus.sentence(request, 4)).collect();
            assert_eq!(sentences, again);
            let asks = matches!(strategy, Strategy::Stratified | Strategy::Taxonomy);
            let mut different = std::collections::HashSet::new();
            for sentence in sentences {
                assert_eq!(sentence.is_some(), asks, "{strategy}");
                let Some(sentence) = sentence else { continue };
                assert!(!sentence.contains("example") && !sentence.contains('\n'));
                different.insert(sentence);
            }
            assert_eq!(different.len(), if asks { 50 } else { 0 }, "{strategy}");
        }
    }

    #[test]
    fn a_skill_s_own_lists_are_used() {
        let toml = "name = \"tea\"\ndescription = \"d\"\nstyle = \"s\"\ninstruction = \"Write {count}.\"\n\
            seeds = [\"a cup\"]\nmax_words = 9\n[attributes]\ncup = [\"tall\"]\n[topics]\nteas = [\"green\"]\n";
        let skill = Skill::parse(toml, std::path::Path::new("tea.toml")).unwrap();
        let sentence = |strategy| {
            let focus = Focus::new(strategy, &skill, 0).unwrap();
            focus.sentence(3, 2).unwrap()
        };
        assert_eq!(
            sentence(Strategy::Stratified),
            "Each image description should show one of these combinations, in this order: cup: tall; cup: tall."
        );
        assert_eq!(
            sentence(Strategy::Taxonomy),
            "All image descriptions should be about this topic: green (teas)."
        );
    }
}
