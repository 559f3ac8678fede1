//! What a prompt may be made of, before it is compared with others.

use selma_rouge::DiversityFilter;
use unicode_script::{Script, UnicodeScript as _};

use crate::{BlockList, LlmError, NameFinder, PromptConfig, RejectReason, Skill, Strategy};

/// The rules for single prompts of a skill and of the settings.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Rules of the skill; `None` for a strategy that has none.
    shape: Option<Shape>,
    block_list: BlockList,
    names: Option<NameFinder>,
}

#[derive(Debug)]
struct Shape {
    min_words: usize,
    max_words: usize,
    max_characters: usize,
    scripts: Vec<Script>,
    /// The lines of the instruction.
    instruction: DiversityFilter,
}

impl Rules {
    pub(crate) fn new(skill: &Skill, config: &PromptConfig) -> Result<Self, LlmError> {
        let limited = config.strategy != Strategy::SelmaOfficial;
        Ok(Self {
            shape: limited.then(|| Shape::new(skill, config)).transpose()?,
            block_list: config.block_list.clone(),
            names: config.drop_named_artists.then(NameFinder::builtin),
        })
    }

    /// The first rule that a prompt breaks.
    pub(crate) fn judge(&self, text: &str) -> Option<RejectReason> {
        let shape = self.shape.as_ref().and_then(|shape| shape.judge(text));
        shape
            .or_else(|| {
                let term = self.block_list.find(text)?.to_owned();
                Some(RejectReason::Blocked { term })
            })
            .or_else(|| {
                let name = self.names.as_ref()?.artist(text)?;
                Some(RejectReason::NamedArtist { name })
            })
    }
}

impl Shape {
    fn new(skill: &Skill, config: &PromptConfig) -> Result<Self, LlmError> {
        let mut instruction = DiversityFilter::new(config.instruction_threshold, config.tokenizer)?;
        for line in skill.render::<&str>(&[]).lines() {
            instruction.insert(line.trim());
        }
        let scripts = skill.scripts.iter();
        Ok(Self {
            min_words: skill.min_words,
            max_words: if config.enforce_max_words {
                skill.max_words
            } else {
                usize::MAX
            },
            max_characters: skill.max_characters,
            scripts: scripts.filter_map(|name| script_of_name(name)).collect(),
            instruction,
        })
    }

    fn judge(&self, text: &str) -> Option<RejectReason> {
        let characters = text.chars().count();
        if characters > self.max_characters {
            let limit = self.max_characters;
            return Some(RejectReason::TooManyCharacters { characters, limit });
        }
        let words = text.split_whitespace().count();
        if words > self.max_words {
            let limit = self.max_words;
            return Some(RejectReason::TooLong { words, limit });
        }
        if words < self.min_words {
            let limit = self.min_words;
            return Some(RejectReason::TooShort { words, limit });
        }
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Some(RejectReason::Garbled);
        }
        self.foreign_letter(text).or_else(|| self.echo(text))
    }

    fn foreign_letter(&self, text: &str) -> Option<RejectReason> {
        if self.scripts.is_empty() {
            return None;
        }
        let foreign = |c: &char| {
            let script = c.script();
            !matches!(script, Script::Common | Script::Inherited) && !self.scripts.contains(&script)
        };
        let letter = text.chars().find(foreign)?;
        Some(RejectReason::Script {
            letter,
            script: letter.script().full_name().to_lowercase(),
        })
    }

    fn echo(&self, text: &str) -> Option<RejectReason> {
        let nearest = self.instruction.nearest(text)?;
        let score = nearest.score.fmeasure;
        (score > self.instruction.threshold()).then(|| RejectReason::Instruction {
            line: self
                .instruction
                .get(nearest.id)
                .unwrap_or_default()
                .to_owned(),
            score,
        })
    }
}

/// The script of this Unicode name, in upper or lower case: `latin`, `Han`, `old_italic`.
pub(crate) fn script_of_name(name: &str) -> Option<Script> {
    let mut start = true;
    let titled: String = name
        .chars()
        .map(|c| {
            let c = if start {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            };
            start = matches!(c, '_' | ' ' | '-');
            if start { '_' } else { c }
        })
        .collect();
    Script::from_full_name(&titled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(toml: &str, config: &PromptConfig) -> Rules {
        let mut skill = Skill::builtin("coco").unwrap();
        let table: toml::Table = toml::from_str(toml).unwrap();
        skill.min_words = table
            .get("min_words")
            .map_or(1, |v| v.as_integer().unwrap() as usize);
        skill.scripts = table
            .get("scripts")
            .map_or_else(Vec::new, |v| v.clone().try_into().unwrap());
        Rules::new(&skill, config).unwrap()
    }

    #[test]
    fn every_rule_has_its_reason() {
        let usual = PromptConfig::default();
        let rules = rules("min_words = 2\nscripts = [\"latin\"]", &usual);
        let judge = |text: &str| rules.judge(text);
        assert_eq!(judge("Zwei Übel, ½ café & 3 🐶!"), None);
        assert_eq!(
            judge("dog"),
            Some(RejectReason::TooShort { words: 1, limit: 2 })
        );
        assert_eq!(
            judge(&"a ".repeat(31)),
            Some(RejectReason::TooLong {
                words: 31,
                limit: 30
            })
        );
        assert_eq!(
            judge(&"a".repeat(1_000_000)),
            Some(RejectReason::TooManyCharacters {
                characters: 1_000_000,
                limit: 2000
            })
        );
        assert_eq!(
            judge("a red кот"),
            Some(RejectReason::Script {
                letter: 'к',
                script: "cyrillic".to_owned()
            })
        );
        let garbled = judge("a caf\u{fffd}");
        assert_eq!(garbled, Some(RejectReason::Garbled));
    }

    #[test]
    fn echoes_of_the_instruction_are_no_prompts() {
        let judge = |config: &PromptConfig, text: &str| rules("", config).judge(text);
        let usual = PromptConfig::default();
        // What a model of 135 million parameters answers, among others.
        for echo in [
            "The image description should mention diverse objects that frequently appear in daily life.",
            "The image description should be shorter than 10 words.",
            "Please create 20 more diverse image descriptions.",
        ] {
            let reason = judge(&usual, echo);
            let Some(RejectReason::Instruction { line, score }) = reason else {
                panic!("{echo}: {reason:?}")
            };
            let expected = selma_rouge::rouge_l(&line, echo, usual.tokenizer).fmeasure;
            assert!(score == expected && score > 0.5, "{line}: {score}");
        }
        for caption in Skill::of_paper()
            .unwrap()
            .iter()
            .flat_map(|skill| &skill.seeds)
        {
            let reason = judge(&usual, caption);
            assert!(!matches!(reason, Some(RejectReason::Instruction { .. })));
        }
        let echo =
            "5. The text style of the image descriptions should be different from each other.";
        let off = PromptConfig {
            instruction_threshold: 1.0,
            ..usual
        };
        assert_eq!(judge(&off, echo), None);
    }

    #[test]
    fn no_script_named_means_any() {
        let rules = rules("", &PromptConfig::default());
        assert_eq!(rules.judge("一只狗 и кот"), None);
    }

    #[test]
    fn lists_hold_for_every_strategy_and_lengths_do_not() {
        let config = PromptConfig {
            strategy: Strategy::SelmaOfficial,
            block_list: BlockList::new(["Gore"]).unwrap(),
            drop_named_artists: true,
            ..PromptConfig::default()
        };
        let rules = rules("min_words = 2\nscripts = [\"han\"]", &config);
        assert_eq!(rules.judge(&"a ".repeat(1000)), None);
        assert_eq!(rules.judge("\u{fffd}"), None);
        let echo = "The image descriptions should be less than 30 words.";
        assert_eq!(rules.judge(echo), None);
        assert_eq!(
            rules.judge("much GORE"),
            Some(RejectReason::Blocked {
                term: "Gore".to_owned()
            })
        );
        assert_eq!(
            rules.judge("a house by greg rutkowski"),
            Some(RejectReason::NamedArtist {
                name: "greg rutkowski".to_owned()
            })
        );
    }

    #[test]
    fn scripts_are_known_by_name() {
        assert_eq!(script_of_name("latin"), Some(Script::Latin));
        assert_eq!(script_of_name("HAN"), Some(Script::Han));
        assert_eq!(script_of_name("old italic"), Some(Script::Old_Italic));
        assert_eq!(script_of_name("latn"), None);
        assert_eq!(script_of_name(""), None);
    }
}
