//! Prompts held out for evaluation.

use std::collections::HashSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use selma_eval::DsgQuestion;
use serde::{Deserialize, Serialize};

use crate::{MiniError, Partition, SceneSpec, Style, caption, questions, sample_spec};

/// Prompts of each style in the test set; 320 in all.
pub const TEST_PROMPTS_PER_STYLE: usize = 64;
/// Prompts of each style in the validation set; 100 in all.
pub const VALIDATION_PROMPTS_PER_STYLE: usize = 20;

/// Draws per wanted prompt before a part of the world counts as used up.
const PATIENCE: usize = 20_000;

/// A prompt with what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalItem {
    /// `<style>_<number>`, DSG's form of an item id.
    pub id: String,
    /// The style, whose name is that of the skill.
    pub skill: Style,
    /// The prompt.
    pub text: String,
    /// What it says.
    pub spec: SceneSpec,
}

impl EvalItem {
    /// The questions on a picture of this prompt.
    pub fn questions(&self) -> Vec<DsgQuestion> {
        questions(&self.id, &self.text, &self.spec)
    }
}

/// A set of prompts over the five styles, whose specifications differ pairwise, even without their backgrounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalSet {
    items: Vec<EvalItem>,
}

impl EvalSet {
    /// The test set: [`TEST_PROMPTS_PER_STYLE`] prompts of each style from [`Partition::Test`].
    ///
    /// # Errors
    /// None; see [`EvalSet::draw`].
    pub fn held_out(seed: u64) -> Result<Self, MiniError> {
        Self::draw(Partition::Test, TEST_PROMPTS_PER_STYLE, seed)
    }

    /// The validation set: [`VALIDATION_PROMPTS_PER_STYLE`] prompts of each style from [`Partition::Validation`].
    ///
    /// # Errors
    /// None; see [`EvalSet::draw`].
    pub fn validation(seed: u64) -> Result<Self, MiniError> {
        Self::draw(Partition::Validation, VALIDATION_PROMPTS_PER_STYLE, seed)
    }

    /// `per_style` prompts of each style from one part of the world.
    ///
    /// # Errors
    /// [`MiniError::Exhausted`] if the part has not so many different ones.
    pub fn draw(partition: Partition, per_style: usize, seed: u64) -> Result<Self, MiniError> {
        Self::draw_patiently(partition, per_style, seed, PATIENCE)
    }

    fn draw_patiently(
        partition: Partition,
        per_style: usize,
        seed: u64,
        patience: usize,
    ) -> Result<Self, MiniError> {
        let mut items = Vec::with_capacity(per_style * Style::ALL.len());
        let mut used = HashSet::new();
        for (stream, &style) in Style::ALL.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream as u64);
            for number in 0..per_style {
                let spec = (0..patience)
                    .map(|_| sample_spec(style, &mut rng))
                    .find(|spec| {
                        spec.partition() == partition && used.insert(without_background(spec))
                    })
                    .ok_or(MiniError::Exhausted {
                        found: items.len(),
                        wanted: per_style * Style::ALL.len(),
                    })?;
                let text = caption(&spec, style, &mut rng);
                items.push(EvalItem {
                    id: format!("{style}_{number}"),
                    skill: style,
                    text,
                    spec,
                });
            }
        }
        Ok(Self { items })
    }

    /// The prompts, style by style.
    pub fn items(&self) -> &[EvalItem] {
        &self.items
    }

    /// The questions of all prompts, in order: the rows of DSG's table.
    pub fn questions(&self) -> Vec<DsgQuestion> {
        self.items.iter().flat_map(EvalItem::questions).collect()
    }
}

fn without_background(spec: &SceneSpec) -> SceneSpec {
    SceneSpec {
        background: None,
        ..spec.canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrainingWorld, parse_caption};
    use selma_eval::dsg::QuestionSet;

    #[test]
    fn the_sets_have_their_sizes_and_parts() {
        for (set, partition, per_style) in [
            (
                EvalSet::held_out(1).unwrap(),
                Partition::Test,
                TEST_PROMPTS_PER_STYLE,
            ),
            (
                EvalSet::validation(1).unwrap(),
                Partition::Validation,
                VALIDATION_PROMPTS_PER_STYLE,
            ),
        ] {
            for &style in Style::ALL {
                assert_eq!(
                    set.items()
                        .iter()
                        .filter(|item| item.skill == style)
                        .count(),
                    per_style
                );
            }
            for item in set.items() {
                assert_eq!(item.spec.partition(), partition);
                assert_eq!(
                    parse_caption(&item.text).as_ref(),
                    Some(&item.spec),
                    "{}",
                    item.text
                );
            }
            let texts: HashSet<&str> = set.items().iter().map(|item| item.text.as_str()).collect();
            assert_eq!(texts.len(), set.items().len());
        }
    }

    #[test]
    fn training_never_says_what_is_held_out() {
        let set = EvalSet::held_out(1).unwrap();
        let mut held_out: HashSet<SceneSpec> = set
            .items()
            .iter()
            .map(|i| without_background(&i.spec))
            .collect();
        held_out.extend(
            EvalSet::validation(1)
                .unwrap()
                .items()
                .iter()
                .map(|i| without_background(&i.spec)),
        );
        let texts: HashSet<&str> = set.items().iter().map(|item| item.text.as_str()).collect();
        let world = TrainingWorld {
            seed: 1,
            caption_noise: 0.4,
            mix_ups: 0.4,
        };
        for item in world.iter().take(5000).map(Result::unwrap) {
            assert!(!held_out.contains(&without_background(&item.spec)));
            assert!(!texts.contains(item.caption.as_str()));
        }
    }

    #[test]
    fn seeds_decide() {
        assert_eq!(EvalSet::held_out(1).unwrap(), EvalSet::held_out(1).unwrap());
        assert_ne!(EvalSet::held_out(1).unwrap(), EvalSet::held_out(2).unwrap());
    }

    #[test]
    fn questions_make_a_sound_set() {
        let set = EvalSet::held_out(1).unwrap();
        let questions = QuestionSet::new(set.questions()).unwrap();
        assert_eq!(questions.items().len(), set.items().len());
        assert!(questions.quirks().is_empty());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("questions.csv");
        questions.write(&path).unwrap();
        let read = QuestionSet::read(&path, selma_eval::dsg::Quirks::Strict).unwrap();
        assert_eq!(read.items(), questions.items());
    }

    #[test]
    fn a_part_can_be_used_up() {
        let error = EvalSet::draw_patiently(Partition::Validation, 4, 1, 5).unwrap_err();
        assert!(
            matches!(error, MiniError::Exhausted { wanted: 20, .. }),
            "{error}"
        );
    }
}
