//! The growing pool of captions and the numbers of a run.

use std::collections::HashSet;

use selma_rouge::{DiversityFilter, Verdict};
use serde::{Deserialize, Serialize};

use crate::{
    ChatResponse, FinishReason, LlmError, Prompt, PromptConfig, RejectReason, RejectedPrompt,
    Skill, Usage, parse_numbered_list,
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

/// Numbers of a run. `parsed = kept + rejected_similar + rejected_long + duplicates + surplus`; replayed requests count
/// like all others, so that a resumed run reports the same numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationReport {
    /// Prompts wanted.
    pub requested: usize,
    /// Prompts found in the answers.
    pub parsed: usize,
    /// Prompts accepted.
    pub kept: usize,
    /// Prompts too close to a seed or an accepted prompt.
    pub rejected_similar: usize,
    /// Prompts with too many words.
    pub rejected_long: usize,
    /// Prompts that were word for word there already.
    pub duplicates: usize,
    /// Prompts of the last answer that were not needed any more.
    pub surplus: usize,
    /// Last prompts of answers that ended at the token limit, dropped because they may be cut.
    pub cut: usize,
    /// Lines of the answers that belong to no prompt.
    pub skipped_lines: usize,
    /// Prompts with a wrong number.
    pub misnumbered: usize,
    /// Numbers without a prompt.
    pub empty: usize,
    /// Requests answered.
    pub requests: u64,
    /// Tokens used, as far as the server counted them.
    pub usage: Usage,
}

/// What a run of a [`PromptGenerator`](crate::PromptGenerator) made.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The accepted prompts, in order; as many as asked for.
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
    enforce_max_words: bool,
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
            enforce_max_words: config.enforce_max_words,
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

    /// The captions of an answer whose list should begin with the number `first`.
    pub(crate) fn read(&mut self, response: &ChatResponse, first: usize) -> Vec<String> {
        let mut captions = Vec::new();
        self.report.requests += 1;
        self.report.usage += response.usage.unwrap_or_default();
        for choice in &response.choices {
            let mut list = parse_numbered_list(&choice.text, first);
            if choice.finish_reason == FinishReason::Length && list.items.pop().is_some() {
                self.report.cut += 1;
            }
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
        if self.missing() == 0 {
            self.report.surplus += 1;
            return None;
        }
        let Some(reason) = self.judge(skill, &text) else {
            self.known.insert(text.clone());
            let prompt = Prompt::new(&skill.name, self.prompts.len(), text);
            self.prompts.push(prompt);
            return self.prompts.last().map(PromptEvent::Kept);
        };
        match reason {
            RejectReason::TooLong { .. } => self.report.rejected_long += 1,
            RejectReason::Duplicate => self.report.duplicates += 1,
            RejectReason::Similar { .. } => self.report.rejected_similar += 1,
        }
        self.rejected.push(RejectedPrompt {
            skill: skill.name.clone(),
            text,
            reason,
        });
        self.rejected.last().map(PromptEvent::Rejected)
    }

    /// Why a caption is rejected; one that is not is in the filter afterwards.
    fn judge(&mut self, skill: &Skill, text: &str) -> Option<RejectReason> {
        let words = text.split_whitespace().count();
        if self.enforce_max_words && words > skill.max_words {
            let limit = skill.max_words;
            return Some(RejectReason::TooLong { words, limit });
        }
        if self.known.contains(text) {
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

    pub(crate) fn finish(mut self) -> Generation {
        self.report.kept = self.prompts.len();
        Generation {
            prompts: self.prompts,
            rejected: self.rejected,
            report: self.report,
        }
    }
}
