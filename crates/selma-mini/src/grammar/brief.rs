//! Understanding the instruction.

use crate::{Style, parse_caption};

/// Captions asked for where the instruction names no number.
const USUAL_COUNT: usize = 20;
/// Most captions in one answer.
const MOST: usize = 200;

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Brief {
    pub(super) style: Style,
    /// How many captions.
    pub(super) count: usize,
    /// The number of the first one.
    pub(super) first: usize,
    /// The examples' texts.
    pub(super) examples: Vec<String>,
}

impl Brief {
    pub(super) fn read(text: &str) -> Self {
        let lower = text.to_lowercase();
        let mut examples = Vec::new();
        let mut first = 1;
        // The rules are numbered too: examples stand after the last line that announces them.
        let announced = lower.lines().position_last(|line| line.contains("example"));
        for line in text.lines().skip(announced.map_or(0, |i| i + 1)) {
            if let Some((number, rest)) = line.trim().split_once(". ")
                && let Ok(number) = number.parse::<usize>()
            {
                first = number.saturating_add(1);
                examples.push(rest.trim().to_owned());
            }
        }
        let count = wanted(&lower).unwrap_or(USUAL_COUNT).clamp(1, MOST);
        Self {
            style: style(&lower, &examples),
            count,
            first,
            examples,
        }
    }
}

/// The number after "create", "write" or "generate".
fn wanted(lower: &str) -> Option<usize> {
    let mut words = lower.split_whitespace();
    words.find(|word| matches!(*word, "create" | "write" | "generate"))?;
    words.take(3).find_map(|word| word.parse().ok())
}

/// The style by the instruction's words, else by the look of the examples.
fn style(lower: &str, examples: &[String]) -> Style {
    let cues = [
        ("paragraph", Style::LocalizedNarratives),
        ("in details", Style::DiffusionDb),
        ("count objects", Style::CountBench),
        ("commonsense-defying", Style::Whoops),
    ];
    if let Some((_, style)) = cues.iter().find(|(cue, _)| lower.contains(cue)) {
        return *style;
    }
    let most = |test: &dyn Fn(&str) -> bool| {
        2 * examples.iter().filter(|e| test(e)).count() > examples.len()
    };
    if most(&|e| e.matches(", ").count() >= 2 && !e.ends_with('.')) {
        Style::DiffusionDb
    } else if most(&|e| e.matches(". ").count() >= 1) {
        Style::LocalizedNarratives
    } else if most(&|e| parse_caption(e).is_some_and(|spec| spec.is_unusual())) {
        Style::Whoops
    } else if most(&|e| {
        parse_caption(e).is_some_and(|spec| spec.total() > 1 && spec.relation.is_none())
    }) {
        Style::CountBench
    } else {
        Style::Coco
    }
}

/// `Iterator::rposition` for iterators without a known length.
trait PositionLast: Iterator + Sized {
    fn position_last(self, test: impl Fn(&Self::Item) -> bool) -> Option<usize> {
        self.enumerate()
            .filter(|(_, item)| test(item))
            .last()
            .map(|(i, _)| i)
    }
}

impl<I: Iterator> PositionLast for I {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skill;
    use selma_llm::Skill;

    #[test]
    fn own_skills_are_understood() {
        for &style in Style::ALL {
            let skill = skill(style).unwrap();
            let expected = Brief {
                style,
                count: 20,
                first: 4,
                examples: skill.seeds.clone(),
            };
            assert_eq!(Brief::read(&skill.render(&skill.seeds)), expected);
        }
    }

    #[test]
    fn the_paper_s_skills_are_understood() {
        for &style in Style::ALL {
            let skill = Skill::builtin(style.name()).unwrap();
            let brief = Brief::read(&skill.render(&skill.seeds));
            assert_eq!((brief.style, brief.count, brief.first), (style, 20, 4));
        }
    }

    #[test]
    fn other_instructions_go_by_their_examples() {
        for &style in Style::ALL {
            let seeds = skill(style).unwrap().seeds;
            let text = format!(
                "Write 7 more.\n1. {}\n2. {}\n3. {}",
                seeds[0], seeds[1], seeds[2]
            );
            let brief = Brief::read(&text);
            assert_eq!((brief.count, brief.first), (7, 4));
            if style != Style::CountBench {
                assert_eq!(brief.style, style);
            }
        }
        let brief = Brief::read("hello");
        assert_eq!(
            brief,
            Brief {
                style: Style::Coco,
                count: 20,
                first: 1,
                examples: Vec::new()
            }
        );
        assert_eq!(Brief::read("create 99999999 images").count, MOST);
    }
}
