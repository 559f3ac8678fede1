//! The five skills of the miniature world, in the form of `selma-llm`.

use std::path::PathBuf;

use selma_llm::{LlmError, Skill};

use crate::Style;

/// What a language model is asked for in order to get prompts of this style: SELMA's instruction with the rules brought
/// down to the miniature world, and three seeds from its training part. The skill has the style's name.
///
/// # Errors
/// Those of [`Skill::parse`]; a test makes sure that there are none.
pub fn skill(style: Style) -> Result<Skill, LlmError> {
    let toml = match style {
        Style::Coco => include_str!("../skills/coco.toml"),
        Style::LocalizedNarratives => include_str!("../skills/localized_narratives.toml"),
        Style::DiffusionDb => include_str!("../skills/diffusion_db.toml"),
        Style::CountBench => include_str!("../skills/count_bench.toml"),
        Style::Whoops => include_str!("../skills/whoops.toml"),
    };
    Skill::parse(toml, &PathBuf::from(format!("skills/{style}.toml")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, parse_caption};

    #[test]
    fn skills_are_sound_and_their_seeds_belong_to_the_training_part() {
        for &style in Style::ALL {
            let skill = skill(style).unwrap();
            assert_eq!(
                (skill.name.as_str(), skill.count, skill.seeds.len()),
                (style.name(), 20, 3)
            );
            for seed in &skill.seeds {
                let spec = parse_caption(seed).unwrap_or_else(|| panic!("{style}: {seed}"));
                assert_eq!(spec.partition(), Partition::Train, "{seed}");
                assert_eq!(spec.is_unusual(), style == Style::Whoops, "{seed}");
            }
        }
    }
}
