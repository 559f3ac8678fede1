//! The questions of a prompt, as a Davidsonian Scene Graph.

use selma_eval::DsgQuestion;

use super::{Noun, Question, preposition};
use crate::{Group, SceneSpec};

/// The questions that a picture of `spec` must answer with yes, in DSG's form (Cho et al., ICLR 2024): atomic
/// propositions numbered from 1, each with the propositions that it depends on.
///
/// | proposition | tuple | depends on |
/// |---|---|---|
/// | a group is there | `entity - whole (hearts)` | |
/// | its colour | `attribute - color (hearts, green)` | the group |
/// | its stated size | `attribute - size (hearts, small)` | the group |
/// | its count from two | `other - count (hearts, ==3)` | the group |
/// | the relation | `relation - spatial (hearts, star, above)` | both groups |
/// | the stated background | `global - - (grey background)` | |
///
/// Where two groups share a shape, the colour becomes part of the entity ("Is there a red circle?"), and there is no
/// colour question of its own.
pub fn questions(item_id: &str, text: &str, spec: &SceneSpec) -> Vec<DsgQuestion> {
    let mut list = List {
        item_id,
        text,
        questions: Vec::new(),
    };
    let entities: Vec<(Noun, u32)> = spec
        .groups
        .iter()
        .map(|group| {
            let noun = noun(spec, group);
            let keywords = noun.to_string();
            (
                noun,
                list.push(Question::Exists(noun), Kind::ENTITY, &keywords, Vec::new()),
            )
        })
        .collect();
    for (group, &(noun, parent)) in spec.groups.iter().zip(&entities) {
        if noun.colour.is_none() {
            let keywords = format!("{noun}, {}", group.colour);
            list.push(
                Question::HasColour(noun, group.colour),
                Kind::COLOUR,
                &keywords,
                vec![parent],
            );
        }
        if let Some(size) = group.size {
            list.push(
                Question::HasSize(noun, size),
                Kind::SIZE,
                &format!("{noun}, {size}"),
                vec![parent],
            );
        }
        if group.count > 1 {
            let keywords = format!("{noun}, =={}", group.count);
            list.push(
                Question::Count(noun, group.count),
                Kind::COUNT,
                &keywords,
                vec![parent],
            );
        }
    }
    if let (Some(relation), [(a, first), (b, second), ..]) = (spec.relation, entities.as_slice()) {
        let keywords = format!("{a}, {b}, {}", preposition(relation));
        list.push(
            Question::Lies(*a, relation, *b),
            Kind::SPATIAL,
            &keywords,
            vec![*first, *second],
        );
    }
    if let Some(background) = spec.background {
        let keywords = format!("{background} background");
        list.push(
            Question::BackgroundIs(background),
            Kind::GLOBAL,
            &keywords,
            Vec::new(),
        );
    }
    list.questions
}

/// How questions call a group.
fn noun(spec: &SceneSpec, group: &Group) -> Noun {
    let shared = spec
        .groups
        .iter()
        .filter(|other| other.shape == group.shape)
        .count()
        > 1;
    Noun {
        colour: shared.then_some(group.colour),
        shape: group.shape,
        plural: group.count > 1,
    }
}

/// DSG's two category columns.
#[derive(Clone, Copy)]
struct Kind {
    broad: &'static str,
    detailed: &'static str,
}

impl Kind {
    const ENTITY: Self = Self {
        broad: "entity",
        detailed: "whole",
    };
    const COLOUR: Self = Self {
        broad: "attribute",
        detailed: "color",
    };
    const SIZE: Self = Self {
        broad: "attribute",
        detailed: "size",
    };
    const COUNT: Self = Self {
        broad: "other",
        detailed: "count",
    };
    const SPATIAL: Self = Self {
        broad: "relation",
        detailed: "spatial",
    };
    const GLOBAL: Self = Self {
        broad: "global",
        detailed: "-",
    };
}

struct List<'a> {
    item_id: &'a str,
    text: &'a str,
    questions: Vec<DsgQuestion>,
}

impl List<'_> {
    fn push(
        &mut self,
        question: Question,
        kind: Kind,
        keywords: &str,
        dependency: Vec<u32>,
    ) -> u32 {
        let Kind { broad, detailed } = kind;
        let proposition_id = self
            .questions
            .last()
            .map_or(1, |last| last.proposition_id + 1);
        self.questions.push(DsgQuestion {
            item_id: self.item_id.to_owned(),
            text: self.text.to_owned(),
            keywords: keywords.to_owned(),
            proposition_id,
            dependency,
            category_broad: broad.to_owned(),
            category_detailed: detailed.to_owned(),
            tuple: format!("{broad} - {detailed} ({keywords})"),
            question: question.to_string(),
        });
        proposition_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_spec;
    use crate::{SeenScene, layout, parse_caption};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn rows(text: &str) -> Vec<(u32, Vec<u32>, String, String)> {
        let spec = parse_caption(text).unwrap();
        let rows = questions("coco_0", text, &spec);
        rows.into_iter()
            .map(|q| (q.proposition_id, q.dependency, q.tuple, q.question))
            .collect()
    }

    #[test]
    fn a_prompt_becomes_its_scene_graph() {
        let text = "Three small green hearts next to a star on a grey background."
            .replace("a star", "a red star");
        let row = |id, parents: &[u32], tuple: &str, question: &str| {
            (id, parents.to_vec(), tuple.to_owned(), question.to_owned())
        };
        assert_eq!(
            rows(&text),
            [
                row(1, &[], "entity - whole (hearts)", "Are there hearts?"),
                row(2, &[], "entity - whole (star)", "Is there a star?"),
                row(
                    3,
                    &[1],
                    "attribute - color (hearts, green)",
                    "Are the hearts green?"
                ),
                row(
                    4,
                    &[1],
                    "attribute - size (hearts, small)",
                    "Are the hearts small?"
                ),
                row(
                    5,
                    &[1],
                    "other - count (hearts, ==3)",
                    "Are there three hearts?"
                ),
                row(6, &[2], "attribute - color (star, red)", "Is the star red?"),
                row(
                    7,
                    &[],
                    "global - - (grey background)",
                    "Is the background grey?"
                ),
            ]
        );
    }

    #[test]
    fn shared_shapes_are_told_apart_by_colour() {
        let questions: Vec<String> = rows("An orange star above two blue stars.")
            .into_iter()
            .map(|(.., question)| question)
            .collect();
        assert_eq!(
            questions,
            [
                "Is there an orange star?",
                "Are there blue stars?",
                "Are there two blue stars?",
                "Is the orange star above the blue stars?"
            ]
        );
    }

    #[test]
    fn every_question_is_true_of_the_scene() {
        for seed in 0..3000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let spec = any_spec(&mut rng);
            let seen = SeenScene::from(&layout(&spec, &mut rng).unwrap());
            for row in questions("x", "", &spec) {
                let question: Question = row.question.parse().unwrap();
                assert!(seen.answer(question), "seed {seed}: {question} {seen:?}");
                assert!(
                    row.dependency
                        .iter()
                        .all(|&parent| parent < row.proposition_id)
                );
            }
        }
    }
}
