//! What prompts say of people: [`BiasReport`].

use std::collections::BTreeMap;

use selma_rouge::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::lexicon::{Lexicon, tokens, word_lists};
use crate::{NameFinder, Prompt};

/// What a term says of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasKind {
    /// That they are women or girls.
    Female,
    /// That they are men or boys.
    Male,
    /// How old they are.
    Age,
    /// The tone of their skin.
    SkinTone,
    /// Where they come from; also said of things: `Greek salad`.
    Nationality,
    /// Who they are, as [`NameFinder::people`] guesses.
    NamedPerson,
}

impl BiasKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Female,
        Self::Male,
        Self::Age,
        Self::SkinTone,
        Self::Nationality,
        Self::NamedPerson,
    ];

    /// The name in files: `female`, `skin_tone`, ..
    pub fn name(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
            Self::Age => "age",
            Self::SkinTone => "skin_tone",
            Self::Nationality => "nationality",
            Self::NamedPerson => "named_person",
        }
    }
}

/// A term in a prompt, for review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasHit {
    /// Id of the prompt.
    pub prompt: String,
    /// What the term says.
    pub kind: BiasKind,
    /// The term as the word list has it, or the name.
    pub term: String,
}

/// How often the prompts of one skill name gender, age, skin tone, nationality and persons, which the discussion of SELMA
/// (arXiv 2403.06952) asks to look at before a model learns from them.
///
/// The words are those of `words/bias_terms.txt`, which is ours, in English, and not complete: the report shows where to look,
/// and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasReport {
    /// The skill.
    pub skill: String,
    /// All prompts of the skill.
    pub prompts: usize,
    /// Prompts with a term, by kind; kinds that no prompt has are 0.
    pub prompts_with: BTreeMap<BiasKind, usize>,
    /// How often each term stands in the prompts, by kind.
    pub terms: BTreeMap<BiasKind, BTreeMap<String, usize>>,
    /// Every term of every prompt, in order; one that a prompt repeats is there once.
    pub hits: Vec<BiasHit>,
}

impl BiasReport {
    fn new(skill: &str) -> Self {
        Self {
            skill: skill.to_owned(),
            prompts: 0,
            prompts_with: BiasKind::ALL.map(|kind| (kind, 0)).into(),
            terms: BTreeMap::new(),
            hits: Vec::new(),
        }
    }

    /// A report for each skill of the prompts, in the order in which the skills first occur.
    pub fn of(prompts: &[Prompt]) -> Vec<Self> {
        let words = terms();
        let names = NameFinder::builtin();
        let mut reports: Vec<Self> = Vec::new();
        for prompt in prompts {
            let known = reports
                .iter()
                .position(|report| report.skill == prompt.skill);
            let at = known.unwrap_or_else(|| {
                reports.push(Self::new(&prompt.skill));
                reports.len() - 1
            });
            if let Some(report) = reports.get_mut(at) {
                report.add(prompt, &words, &names);
            }
        }
        reports
    }

    fn add(&mut self, prompt: &Prompt, words: &[(BiasKind, Lexicon)], names: &NameFinder) {
        self.prompts += 1;
        let first = self.hits.len();
        let tokens = tokens(Tokenizer::Unicode, &prompt.text);
        let people = names.people(&prompt.text);
        let people = people
            .iter()
            .map(|name| (BiasKind::NamedPerson, name.as_str()));
        let found = words
            .iter()
            .flat_map(|(kind, list)| list.find_in(&tokens).into_iter().map(|term| (*kind, term)));
        for (kind, term) in found.chain(people) {
            let counts = self.terms.entry(kind).or_default();
            *counts.entry(term.to_owned()).or_default() += 1;
            let hit = BiasHit {
                prompt: prompt.id.clone(),
                kind,
                term: term.to_owned(),
            };
            let here = self.hits.get(first..).unwrap_or_default();
            if here.contains(&hit) {
                continue;
            }
            if here.iter().all(|other| other.kind != kind) {
                *self.prompts_with.entry(kind).or_default() += 1;
            }
            self.hits.push(hit);
        }
    }
}

/// The built-in terms. Each kind has its own list, so that `old man` is an age and `man` in it a gender.
fn terms() -> Vec<(BiasKind, Lexicon)> {
    let lists = word_lists(include_str!("../words/bias_terms.txt"), Tokenizer::Unicode);
    BiasKind::ALL
        .into_iter()
        .filter_map(|kind| {
            let list = lists.iter().find(|(name, _)| *name == kind.name());
            Some((kind, list?.1.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(texts: &[&str]) -> BiasReport {
        let prompts: Vec<Prompt> = (0..)
            .zip(texts)
            .map(|(number, text)| Prompt::new("coco", number, *text))
            .collect();
        BiasReport::of(&prompts).remove(0)
    }

    fn kinds(text: &str) -> Vec<(BiasKind, String)> {
        let hits = report(&[text]).hits;
        hits.into_iter().map(|hit| (hit.kind, hit.term)).collect()
    }

    #[test]
    fn the_word_list_is_sound() {
        let text = include_str!("../words/bias_terms.txt");
        let names: Vec<&str> = word_lists(text, Tokenizer::Unicode)
            .iter()
            .map(|(name, _)| *name)
            .collect();
        // All but the named persons, who have no list.
        assert_eq!(names, BiasKind::ALL.map(BiasKind::name)[..5]);
        assert_eq!(terms().len(), 5);
        let mut seen = std::collections::HashSet::new();
        for term in text.lines().filter(|line| !line.starts_with('#')) {
            if term.starts_with('[') {
                seen.clear();
            }
            assert!(seen.insert(term), "{term}");
            assert_eq!(term.to_lowercase(), term);
        }
        for kind in BiasKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }

    #[test]
    fn terms_are_found_by_kind() {
        use BiasKind::{Age, Female, Male, NamedPerson, Nationality, SkinTone};
        let hit = |kind, term: &str| (kind, term.to_owned());
        assert_eq!(
            kinds("A dark-skinned woman and her Korean friend"),
            [
                hit(Female, "woman"),
                hit(Female, "her"),
                hit(SkinTone, "dark skinned"),
                hit(Nationality, "korean")
            ]
        );
        assert_eq!(
            kinds("an old man with an old clock"),
            [hit(Male, "man"), hit(Age, "old man")]
        );
        assert_eq!(
            kinds("A black woman by a black wall"),
            [hit(Female, "woman"), hit(SkinTone, "black woman")]
        );
        assert_eq!(
            kinds("two girls in a scene by Tom Bagshaw"),
            [
                hit(Female, "girls"),
                hit(Age, "girls"),
                hit(NamedPerson, "tom bagshaw")
            ]
        );
        assert_eq!(kinds("a white wall, the old manor, a mango"), []);
    }

    #[test]
    fn prompts_are_counted_once_and_terms_each_time() {
        let report = report(&[
            "a man and a man",
            "a man with his dog",
            "two dogs",
            "a woman",
        ]);
        assert_eq!(report.prompts, 4);
        assert_eq!(report.prompts_with[&BiasKind::Male], 2);
        assert_eq!(report.prompts_with[&BiasKind::Female], 1);
        assert_eq!(report.prompts_with[&BiasKind::SkinTone], 0);
        assert_eq!(report.terms[&BiasKind::Male]["man"], 3);
        assert_eq!(report.hits.len(), 4);
        assert_eq!(report.hits[1].prompt, "coco-000001");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<BiasReport>(&json).unwrap(), report);
    }

    #[test]
    fn skills_are_reported_apart() {
        let prompts = [
            Prompt::new("b", 0, "a man"),
            Prompt::new("a", 0, "a dog"),
            Prompt::new("b", 1, "a girl"),
        ];
        let reports = BiasReport::of(&prompts);
        let sizes: Vec<(&str, usize, usize)> = reports
            .iter()
            .map(|report| (report.skill.as_str(), report.prompts, report.hits.len()))
            .collect();
        assert_eq!(sizes, [("b", 2, 3), ("a", 1, 0)]);
        assert!(BiasReport::of(&[]).is_empty());
    }
}
