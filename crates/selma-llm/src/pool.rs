//! The growing pool of captions.

use std::collections::HashSet;

use selma_rouge::{DiversityFilter, Verdict};

use crate::rules::Rules;
use crate::{
    ChatResponse, FinishReason, GenerationReport, LlmError, Parser, Price, Prompt, PromptConfig,
    RejectReason, RejectedPrompt, Skill, Strategy,
};

/// What happened in a run of a [`PromptGenerator`](crate::PromptGenerator).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum PromptEvent<'a> {
    /// A request is about to be made.
    Asking {
        /// Its number, counted from 0.
        request: u64,
        /// Prompts accepted so far.
        kept: usize,
        /// Prompts wanted.
        target: usize,
    },
    /// The request was answered.
    Answered {
        /// Its number, counted from 0.
        request: u64,
        /// Whether the answer came from the journal.
        replayed: bool,
        /// Prompts found in it.
        parsed: usize,
    },
    /// A prompt was accepted.
    Kept(&'a Prompt),
    /// A prompt was not accepted.
    Rejected(&'a RejectedPrompt),
}

/// What a run of a [`PromptGenerator`](crate::PromptGenerator) made.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The accepted prompts, in order; as many as asked for (with `selma-official` at least as many).
    pub prompts: Vec<Prompt>,
    /// The others, in order, with their reasons.
    pub rejected: Vec<RejectedPrompt>,
    /// The numbers.
    pub report: GenerationReport,
}

/// Seeds and accepted prompts, and everything that is counted on the way.
#[derive(Debug)]
pub(crate) struct Pool {
    filter: DiversityFilter,
    /// The texts in the filter. Texts without words score zero against all others there, even against themselves.
    known: HashSet<String>,
    rules: Rules,
    /// Whether SELMA's released code is followed to the letter.
    official: bool,
    seeds: usize,
    target: usize,
    prompts: Vec<Prompt>,
    rejected: Vec<RejectedPrompt>,
    report: GenerationReport,
}

impl Pool {
    pub(crate) fn new(skill: &Skill, config: &PromptConfig) -> Result<Self, LlmError> {
        let mut filter = DiversityFilter::new(config.threshold, config.tokenizer)?;
        let mut known = HashSet::new();
        for seed in &skill.seeds {
            filter.insert(seed);
            known.insert(seed.clone());
        }
        Ok(Self {
            filter,
            known,
            rules: Rules::new(skill, config)?,
            official: config.strategy == Strategy::SelmaOfficial,
            seeds: skill.seeds.len(),
            target: config.count,
            prompts: Vec::new(),
            rejected: Vec::new(),
            report: GenerationReport {
                requested: config.count,
                ..GenerationReport::default()
            },
        })
    }

    pub(crate) fn kept(&self) -> usize {
        self.prompts.len()
    }

    pub(crate) fn missing(&self) -> usize {
        self.target.saturating_sub(self.prompts.len())
    }

    pub(crate) fn requests(&self) -> u64 {
        self.report.requests
    }

    /// Seeds, then accepted prompts, in order.
    pub(crate) fn captions(&self) -> impl Iterator<Item = &str> {
        self.filter.iter()
    }

    /// The seeds, in order.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = &str> {
        self.filter.iter().take(self.seeds)
    }

    /// The captions of an answer whose list should begin with the number `first`.
    pub(crate) fn read(
        &mut self,
        response: &ChatResponse,
        parser: Parser,
        first: usize,
    ) -> Vec<String> {
        let mut captions = Vec::new();
        self.report.requests += 1;
        self.report.usage += response.usage.unwrap_or_default();
        for choice in &response.choices {
            let mut list = parser.parse(&choice.text, first);
            let filtered = choice.finish_reason == FinishReason::ContentFilter;
            self.report.filtered += usize::from(filtered);
            let ended_early = filtered || choice.finish_reason == FinishReason::Length;
            // Of JSON it is known what is whole.
            let cut = if list.json {
                list.unfinished
            } else {
                ended_early && !self.official && list.items.pop().is_some()
            };
            self.report.cut += usize::from(cut);
            self.report.without_prompts += usize::from(list.items.is_empty() && !cut);
            self.report.removed_characters += list.removed;
            self.report.skipped_lines += list.skipped;
            self.report.misnumbered += list.misnumbered;
            self.report.empty += list.empty;
            captions.append(&mut list.items);
        }
        self.report.parsed += captions.len();
        captions
    }

    /// Accepts or rejects a caption; `None` if enough are accepted already.
    pub(crate) fn offer(&mut self, skill: &Skill, text: String) -> Option<PromptEvent<'_>> {
        if self.missing() == 0 && !self.official {
            self.report.surplus += 1;
            return None;
        }
        let Some(reason) = self.judge(&text) else {
            self.known.insert(text.clone());
            let prompt = Prompt::new(&skill.name, self.prompts.len(), text);
            self.prompts.push(prompt);
            return self.prompts.last().map(PromptEvent::Kept);
        };
        self.report.reject(&reason);
        self.rejected.push(RejectedPrompt {
            skill: skill.name.clone(),
            text,
            reason,
        });
        self.rejected.last().map(PromptEvent::Rejected)
    }

    /// Why a caption is rejected; one that is not is in the filter afterwards.
    fn judge(&mut self, text: &str) -> Option<RejectReason> {
        if let Some(reason) = self.rules.judge(text) {
            return Some(reason);
        }
        if self.known.contains(text) && !self.official {
            return Some(RejectReason::Duplicate);
        }
        match self.filter.offer(text) {
            Verdict::Kept { .. } => None,
            Verdict::Rejected { nearest } => Some(RejectReason::Similar {
                nearest: self.filter.get(nearest.id).unwrap_or_default().to_owned(),
                score: nearest.score.fmeasure,
            }),
        }
    }

    pub(crate) fn finish(mut self, price: Option<Price>) -> Generation {
        self.report.kept = self.prompts.len();
        self.report.cost = price.map(|price| price.cost(&self.report.usage));
        Generation {
            prompts: self.prompts,
            rejected: self.rejected,
            report: self.report,
        }
    }
}
