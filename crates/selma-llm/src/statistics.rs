//! What a set of prompts is like: [`PromptStatistics`].

use std::collections::HashSet;

use selma_rouge::{DiversityFilter, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::lexicon::{tokens, word_lists};
use crate::{GenerationReport, LlmError, Prompt};

/// Words of prompts, separated by white space, as the limits of a skill count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordCounts {
    /// Of the shortest prompt.
    pub min: usize,
    /// The mean of the two in the middle, if the number of prompts is even.
    pub median: f64,
    /// On average.
    pub mean: f64,
    /// Of the longest prompt.
    pub max: usize,
}

/// How many prompts have a word of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindCoverage {
    /// The kind, in the words of the paper's instruction: `spatial`, `count`, `animal`, ..
    pub kind: String,
    /// Prompts with a word of it.
    pub prompts: usize,
}

/// Numbers of a set of prompts, to compare skills, strategies and language models by. All are 0 for an empty set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptStatistics {
    /// What the set is called.
    pub name: String,
    /// Prompts.
    pub prompts: usize,
    /// Their lengths.
    pub words: WordCounts,
    /// Different tokens.
    pub vocabulary: usize,
    /// Different sequences of one, two and three tokens, as a share of all of them (distinct-n, arXiv 1510.03055), in 0..=1. It
    /// falls as a set grows: compare sets of one size.
    pub distinct: [f64; 3],
    /// ROUGE-L F of a prompt with the nearest other one, on average, in 0..=1; less is more diverse.
    pub mean_nearest: f64,
    /// The twelve kinds of the paper's instruction, in its order. A word list decides, which is ours
    /// (`words/attribute_kinds.txt`): it shows differences between sets rather than the truth.
    pub coverage: Vec<KindCoverage>,
    /// How they were made, if that is known: asked, parsed, rejected and why, tokens, cost.
    pub report: Option<GenerationReport>,
}

impl PromptStatistics {
    /// Looks at a set of prompts; `tokenizer` makes the tokens of all numbers but `words` and `coverage`.
    ///
    /// The time grows with the square of the number of prompts, because of `mean_nearest`.
    ///
    /// # Errors
    /// None in practice; those of [`DiversityFilter::new`], whose threshold is fixed here.
    pub fn new(name: &str, prompts: &[Prompt], tokenizer: Tokenizer) -> Result<Self, LlmError> {
        let tokenized: Vec<Vec<String>> = prompts
            .iter()
            .map(|prompt| tokenizer.tokenize(&prompt.text))
            .collect();
        let vocabulary: HashSet<&String> = tokenized.iter().flatten().collect();
        Ok(Self {
            name: name.to_owned(),
            prompts: prompts.len(),
            words: word_counts(prompts),
            vocabulary: vocabulary.len(),
            distinct: [1, 2, 3].map(|n| distinct(&tokenized, n)),
            mean_nearest: mean_nearest(prompts, tokenizer)?,
            coverage: coverage(prompts),
            report: None,
        })
    }

    /// The same with the report of the run that made the prompts.
    #[must_use]
    pub fn with_report(mut self, report: GenerationReport) -> Self {
        self.report = Some(report);
        self
    }
}

fn word_counts(prompts: &[Prompt]) -> WordCounts {
    let mut counts: Vec<usize> = prompts
        .iter()
        .map(|prompt| prompt.text.split_whitespace().count())
        .collect();
    counts.sort_unstable();
    let at = |place: usize| counts.get(place).copied().unwrap_or_default();
    let middle = at(counts.len().saturating_sub(1) / 2) + at(counts.len() / 2);
    WordCounts {
        min: at(0),
        median: middle as f64 / 2.0,
        mean: ratio(counts.iter().sum(), counts.len()),
        max: counts.last().copied().unwrap_or_default(),
    }
}

/// Different sequences of `n` tokens among all of them.
fn distinct(tokenized: &[Vec<String>], n: usize) -> f64 {
    let sequences = || tokenized.iter().flat_map(|tokens| tokens.windows(n));
    let different: HashSet<&[String]> = sequences().collect();
    ratio(different.len(), sequences().count())
}

fn mean_nearest(prompts: &[Prompt], tokenizer: Tokenizer) -> Result<f64, LlmError> {
    // Texts over the threshold are found faster than others; it has no influence on what is found.
    let mut filter = DiversityFilter::new(0.8, tokenizer)?;
    let ids: Vec<usize> = prompts
        .iter()
        .map(|prompt| filter.insert(&prompt.text))
        .collect();
    let mut sum = 0.0;
    for (prompt, id) in prompts.iter().zip(ids) {
        // A prompt is no neighbour of its own.
        filter.remove(id);
        let nearest = filter.nearest(&prompt.text);
        sum += nearest.map_or(0.0, |nearest| nearest.score.fmeasure);
        filter.insert(&prompt.text);
    }
    Ok(if prompts.is_empty() {
        0.0
    } else {
        sum / prompts.len() as f64
    })
}

fn coverage(prompts: &[Prompt]) -> Vec<KindCoverage> {
    let tokenizer = Tokenizer::RougeStemmed;
    let lists = word_lists(include_str!("../words/attribute_kinds.txt"), tokenizer);
    let mut coverage: Vec<KindCoverage> = lists
        .iter()
        .map(|(kind, _)| KindCoverage {
            kind: (*kind).to_owned(),
            prompts: 0,
        })
        .collect();
    for prompt in prompts {
        let tokens = tokens(tokenizer, &prompt.text);
        for ((_, list), kind) in lists.iter().zip(&mut coverage) {
            kind.prompts += usize::from(!list.find_in(&tokens).is_empty());
        }
    }
    coverage
}

/// `part / whole`, 0 for an empty whole.
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(texts: &[&str]) -> PromptStatistics {
        let prompts: Vec<Prompt> = (0..)
            .zip(texts)
            .map(|(number, text)| Prompt::new("coco", number, *text))
            .collect();
        PromptStatistics::new("x", &prompts, Tokenizer::Rouge).unwrap()
    }

    #[test]
    fn numbers_by_hand() {
        let set = statistics(&[
            "a red dog runs",
            "a red dog sleeps",
            "two cups",
            "it is it is",
        ]);
        assert_eq!(set.prompts, 4);
        let words = WordCounts {
            min: 2,
            median: 4.0,
            mean: 3.5,
            max: 4,
        };
        assert_eq!(set.words, words);
        // a red dog runs sleeps two cups it is
        assert_eq!(set.vocabulary, 9);
        // 14 words; 3 + 3 + 1 + 3 pairs, of which "a red" and "red dog" and "it is" come twice; 2 + 2 + 0 + 2 triples.
        assert_eq!(set.distinct, [9.0 / 14.0, 7.0 / 10.0, 5.0 / 6.0], "{set:?}");
        // The first two share three of four words, the others nothing.
        assert_eq!(set.mean_nearest, (0.75 + 0.75) / 4.0);
        assert_eq!(statistics(&["one two", "three"]).words.median, 1.5);
    }

    #[test]
    fn an_empty_set_and_texts_without_tokens_are_zero() {
        let set = statistics(&[]);
        assert_eq!((set.prompts, set.vocabulary), (0, 0));
        assert_eq!((set.distinct, set.mean_nearest), ([0.0; 3], 0.0));
        assert_eq!(set.words, WordCounts::default());
        assert_eq!(set.coverage.len(), 12);
        assert_eq!(statistics(&["狗", "狗"]).mean_nearest, 0.0);
    }

    #[test]
    fn the_nearest_is_the_nearest_of_all_others() {
        use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let words = ["dog", "kite", "river", "lamp", "bread", "tower"];
        let texts: Vec<String> = (0..60)
            .map(|_| {
                let length = 1 + rng.next_u32() % 8;
                let word = |_| words[rng.next_u32() as usize % words.len()];
                (0..length).map(word).collect::<Vec<_>>().join(" ")
            })
            .collect();
        let mut sum = 0.0;
        for (i, text) in texts.iter().enumerate() {
            let others = texts.iter().enumerate().filter(|(j, _)| *j != i);
            sum += others
                .map(|(_, other)| selma_rouge::rouge_l(other, text, Tokenizer::Rouge).fmeasure)
                .fold(0.0, f64::max);
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let difference = statistics(&texts).mean_nearest - sum / 60.0;
        assert!(difference.abs() < 1e-12, "{difference}");
    }

    #[test]
    fn the_twelve_kinds_are_the_paper_s_and_found_in_every_form() {
        let set = statistics(&[
            "Two dogs running behind a wooden fence",
            "A woman slices three ripe tomatoes in the kitchen",
            "Round yellow lamps",
            "nothing",
        ]);
        let found: Vec<(&str, usize)> = set
            .coverage
            .iter()
            .map(|kind| (kind.kind.as_str(), kind.prompts))
            .collect();
        assert_eq!(
            found,
            [
                ("spatial", 1),
                ("count", 2),
                ("animal", 1),
                ("human", 1),
                ("object", 2),
                ("location", 1),
                ("activity", 1),
                ("color", 1),
                ("attribute", 0),
                ("food", 1),
                ("material", 1),
                ("shape", 1)
            ]
        );
        let skill = crate::Skill::builtin("coco").unwrap();
        let kinds: Vec<&str> = found.iter().map(|(kind, _)| *kind).collect();
        let rule = format!("skills of an image generator: {}.", kinds.join(", "));
        assert!(skill.instruction.contains(&rule), "{rule}");
        for line in include_str!("../words/attribute_kinds.txt").lines() {
            assert_eq!(line.trim(), line);
        }
    }

    #[test]
    fn statistics_survive_json() {
        let set = statistics(&["a dog"]).with_report(GenerationReport {
            cost: Some(0.25),
            ..GenerationReport::default()
        });
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(
            serde_json::from_str::<PromptStatistics>(&json).unwrap(),
            set
        );
    }
}
