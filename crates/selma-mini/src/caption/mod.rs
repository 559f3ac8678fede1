//! Captions in the manner of the five data sets of SELMA: what a specification says, in words.
//!
//! Every caption can be read back: [`parse_caption`] gives exactly the specification it was written from.

mod parse;
mod template;
mod vocabulary;
mod words;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

pub use parse::parse_caption;
pub use vocabulary::vocabulary;

use crate::scene::{pick, shuffle};
use crate::{Background, MiniError, SceneSpec};
use template::{Context, expand, sentence};
use words::Phrases;

/// The manner of a caption, named after the data set that it imitates; each is one skill of SELMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Short sentences.
    Coco,
    /// Paragraphs of several sentences.
    LocalizedNarratives,
    /// Comma-separated tags with style words, as users of image generators write.
    DiffusionDb,
    /// Counts.
    CountBench,
    /// Short sentences about what the training world never or hardly shows.
    Whoops,
}

impl Style {
    /// Every style, in order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::Coco,
        Self::LocalizedNarratives,
        Self::DiffusionDb,
        Self::CountBench,
        Self::Whoops,
    ];

    /// The name of the style's skill, also its serde name: `coco`, `localized_narratives`, `diffusion_db`,
    /// `count_bench`, `whoops`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::LocalizedNarratives => "localized_narratives",
            Self::DiffusionDb => "diffusion_db",
            Self::CountBench => "count_bench",
            Self::Whoops => "whoops",
        }
    }
}

impl std::fmt::Display for Style {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Style {
    type Err = MiniError;

    fn from_str(name: &str) -> Result<Self, MiniError> {
        Self::ALL
            .iter()
            .copied()
            .find(|style| style.name() == name)
            .ok_or_else(|| MiniError::UnknownName {
                what: "style",
                found: name.to_owned(),
            })
    }
}

/// Says `spec` in the given style; `rng` chooses among the paraphrases. At most 50 words.
///
/// ```
/// use rand::SeedableRng;
/// use selma_mini::{Colour, Group, SceneSpec, Shape, Style, caption, parse_caption};
///
/// let star = Group { count: 3, size: None, colour: Colour::Green, shape: Shape::Heart };
/// let spec = SceneSpec { groups: vec![star], relation: None, background: None };
/// let text = caption(&spec, Style::CountBench, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
/// assert!(text.contains("three green hearts"));
/// assert_eq!(parse_caption(&text), Some(spec));
/// ```
pub fn caption(spec: &SceneSpec, style: Style, rng: &mut impl Rng) -> String {
    match style {
        Style::Coco => short(spec, &words::COCO, rng),
        Style::Whoops => short(spec, &words::WHOOPS, rng),
        Style::CountBench => count(spec, rng),
        Style::LocalizedNarratives => paragraph(spec, rng),
        Style::DiffusionDb => tags(spec, rng),
    }
}

/// One sentence with the background at its end.
fn short(spec: &SceneSpec, phrases: &Phrases, rng: &mut impl Rng) -> String {
    let mut context = Context::new(spec, rng);
    let mut text = body(&mut context, phrases);
    if spec.background.is_some() {
        text = format!("{text} {}", context.fill(phrases.background));
    }
    sentence(&text)
}

/// A noun phrase with the number in front, in lower case.
fn count(spec: &SceneSpec, rng: &mut impl Rng) -> String {
    let mut context = Context::new(spec, rng);
    context.numbers = context.rng.random_bool(0.5);
    let mut text = if spec.relation.is_none() && spec.groups.first().is_some_and(|g| g.count == 2) {
        context.fill(words::COUNT_PAIR)
    } else {
        body(&mut context, &words::COUNT)
    };
    if spec.background.is_some() {
        text = format!("{text} {}", context.fill(words::COUNT.background));
    }
    if context.rng.random_bool(0.4) {
        text = format!("{text}, {}", context.fill(words::COUNT.extra));
    }
    text
}

/// Several sentences.
fn paragraph(spec: &SceneSpec, rng: &mut impl Rng) -> String {
    let phrases = &words::NARRATIVE;
    let mut context = Context::new(spec, rng);
    let mut text: String = body(&mut context, phrases)
        .split(". ")
        .map(sentence)
        .collect::<Vec<_>>()
        .join(" ");
    if spec.background.is_some() {
        text = format!("{text} {}", sentence(&context.fill(phrases.background)));
    }
    if context.rng.random_bool(0.5) {
        text = format!("{text} {}", sentence(&context.fill(phrases.extra)));
    }
    text
}

/// Comma-separated tags, the objects first.
fn tags(spec: &SceneSpec, rng: &mut impl Rng) -> String {
    let phrases = &words::TAGS;
    let mut context = Context::new(spec, rng);
    context.articles = context.rng.random_bool(0.4);
    let core = body(&mut context, phrases);
    let mut tags: Vec<String> = Vec::new();
    if spec.background.is_some() {
        tags.push(context.fill(phrases.background));
    }
    let mut extra = phrases.extra.to_vec();
    shuffle(&mut extra, context.rng);
    let wanted = context.rng.random_range(2..=6);
    tags.extend(extra.into_iter().take(wanted).map(str::to_owned));
    shuffle(&mut tags, context.rng);
    tags.insert(0, core);
    tags.join(", ")
}

fn body<R: Rng>(context: &mut Context<'_, R>, phrases: &Phrases) -> String {
    match (context.spec.relation, context.spec.groups.len()) {
        (Some(_), _) => context.fill(phrases.relation),
        (None, 0 | 1) => context.fill(phrases.one),
        (None, _) => context.fill(phrases.several),
    }
}

impl<R: Rng> Context<'_, R> {
    /// One of the templates, filled.
    fn fill(&mut self, templates: &[&str]) -> String {
        let template = pick(templates, "{g}", self.rng);
        expand(template, self)
    }
}

/// The word of a stated background.
fn background_word(background: Option<Background>) -> &'static str {
    background.map_or("", Background::word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_spec;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn reading_inverts_writing() {
        for &style in Style::ALL {
            for seed in 0..4000 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let spec = any_spec(&mut rng);
                let text = caption(&spec, style, &mut rng);
                assert_eq!(
                    parse_caption(&text),
                    Some(spec),
                    "{style}, seed {seed}: {text}"
                );
            }
        }
    }

    #[test]
    fn captions_are_short_enough() {
        for &style in Style::ALL {
            let limit = match style {
                Style::LocalizedNarratives | Style::DiffusionDb => 50,
                _ => 30,
            };
            for seed in 0..2000 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let text = caption(&any_spec(&mut rng), style, &mut rng);
                assert!(text.split_whitespace().count() < limit, "{style}: {text}");
            }
        }
    }

    #[test]
    fn styles_have_names() {
        for &style in Style::ALL {
            assert_eq!(style.name().parse(), Ok(style));
            assert_eq!(
                serde_json::to_string(&style).unwrap(),
                format!("\"{style}\"")
            );
        }
        assert!("haiku".parse::<Style>().is_err());
    }

    #[test]
    fn paraphrases_are_many() {
        for &style in Style::ALL {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let mut spec = any_spec(&mut rng);
            spec.background = Some(Background::Sand);
            let texts: std::collections::HashSet<String> =
                (0..300).map(|_| caption(&spec, style, &mut rng)).collect();
            assert!(texts.len() > 40, "{style}: {}", texts.len());
        }
    }
}
