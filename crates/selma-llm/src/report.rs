//! The numbers of a run: [`GenerationReport`].

use serde::{Deserialize, Serialize};

use crate::{RejectReason, Usage};

/// Numbers of a run. `parsed` is the sum of `kept`, `duplicates`, `surplus` and everything `rejected_*`; replayed requests count
/// like all others, so that a resumed run reports the same numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// Prompts with too few words.
    pub rejected_short: usize,
    /// Prompts with too many characters.
    pub rejected_characters: usize,
    /// Prompts with letters of a script that the skill does not allow.
    pub rejected_script: usize,
    /// Prompts with a mark that stands for bytes which were no text.
    pub rejected_garbled: usize,
    /// Prompts that repeat the instruction.
    pub rejected_instruction: usize,
    /// Prompts with a term of the block list.
    pub rejected_blocked: usize,
    /// Prompts that name an artist.
    pub rejected_artist: usize,
    /// Prompts that were word for word there already.
    pub duplicates: usize,
    /// Prompts of the last answer that were not needed any more.
    pub surplus: usize,
    /// Last prompts of answers that ended at the token limit or at a content filter, dropped because they may be cut.
    pub cut: usize,
    /// Answers that a content filter of the server ended.
    pub filtered: usize,
    /// Answers in which no prompt was found.
    pub without_prompts: usize,
    /// Lines of the answers that belong to no prompt.
    pub skipped_lines: usize,
    /// Prompts with a wrong number.
    pub misnumbered: usize,
    /// Numbers without a prompt.
    pub empty: usize,
    /// Characters taken out of the answers, see [`ParsedList::removed`](crate::ParsedList::removed).
    pub removed_characters: usize,
    /// Requests answered.
    pub requests: u64,
    /// Tokens used, as far as the server counted them.
    pub usage: Usage,
    /// What these tokens cost, if the price is known, in its currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

impl GenerationReport {
    /// Prompts that were not accepted, by reason, with the reasons' names in a file of rejected prompts. All reasons are there,
    /// in a fixed order, and `surplus` is none.
    pub fn rejections(&self) -> [(&'static str, usize); 10] {
        [
            ("too_many_characters", self.rejected_characters),
            ("too_long", self.rejected_long),
            ("too_short", self.rejected_short),
            ("garbled", self.rejected_garbled),
            ("script", self.rejected_script),
            ("instruction", self.rejected_instruction),
            ("blocked", self.rejected_blocked),
            ("named_artist", self.rejected_artist),
            ("duplicate", self.duplicates),
            ("similar", self.rejected_similar),
        ]
    }

    /// Counts a prompt that was not accepted.
    pub(crate) fn reject(&mut self, reason: &RejectReason) {
        let count = match reason {
            RejectReason::TooManyCharacters { .. } => &mut self.rejected_characters,
            RejectReason::TooLong { .. } => &mut self.rejected_long,
            RejectReason::TooShort { .. } => &mut self.rejected_short,
            RejectReason::Garbled => &mut self.rejected_garbled,
            RejectReason::Script { .. } => &mut self.rejected_script,
            RejectReason::Instruction { .. } => &mut self.rejected_instruction,
            RejectReason::Blocked { .. } => &mut self.rejected_blocked,
            RejectReason::NamedArtist { .. } => &mut self.rejected_artist,
            RejectReason::Duplicate => &mut self.duplicates,
            RejectReason::Similar { .. } => &mut self.rejected_similar,
        };
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_name_in_the_file() {
        let reasons = [
            RejectReason::TooManyCharacters {
                characters: 2,
                limit: 1,
            },
            RejectReason::TooLong { words: 2, limit: 1 },
            RejectReason::TooShort { words: 1, limit: 2 },
            RejectReason::Garbled,
            RejectReason::Script {
                letter: 'к',
                script: "cyrillic".to_owned(),
            },
            RejectReason::Instruction {
                line: "x".to_owned(),
                score: 1.0,
            },
            RejectReason::Blocked {
                term: "x".to_owned(),
            },
            RejectReason::NamedArtist {
                name: "x".to_owned(),
            },
            RejectReason::Duplicate,
            RejectReason::Similar {
                nearest: "x".to_owned(),
                score: 1.0,
            },
        ];
        for (place, reason) in reasons.iter().enumerate() {
            let mut report = GenerationReport::default();
            report.reject(reason);
            let json = serde_json::to_string(reason).unwrap();
            for (other, (name, count)) in report.rejections().iter().enumerate() {
                assert_eq!(*count, usize::from(other == place), "{name}");
                assert_eq!(
                    json.contains(&format!("\"{name}\"")),
                    other == place,
                    "{json}"
                );
            }
        }
    }

    #[test]
    fn reports_of_earlier_versions_are_read() {
        let json = r#"{"requested":3,"parsed":5,"kept":3,"rejected_similar":1,"rejected_long":0,"duplicates":1,"surplus":0,
            "cut":0,"skipped_lines":2,"misnumbered":0,"empty":0,"requests":2,"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let report: GenerationReport = serde_json::from_str(json).unwrap();
        assert_eq!((report.kept, report.rejected_script), (3, 0));
        assert_eq!((report.without_prompts, report.cost), (0, None));
        assert!(serde_json::from_str::<GenerationReport>("{\"keept\": 3}").is_err());
    }
}
