//! The small template language that captions are written in.
//!
//! A template is text with fields in braces: `{a}` and `{b}` the first and second group, `{rest}` all but the first,
//! `{and_rest}` the same after "and" or nothing, `{bare}` the first without its number, `{g}` all groups; `{rel}` "to the left of" for how a lies to b, `{inv}` the opposite, `{at_a}` and `{at_b}` "on the
//! left"; `{is}` and `{are_b}` the verb that agrees with a and b, `{it}` the pronoun of a; `{bg}` the background;
//! any other field is a list of fillers from [`words::filler`](super::words::filler).

use rand::{Rng, RngExt};

use super::background_word;
use super::words::{ABOVE, BELOW, JOIN_TWO, LARGE, LEFT_OF, RIGHT_OF, SMALL};
use super::words::{AT_BOTTOM, AT_LEFT, AT_RIGHT, AT_TOP, filler};
use crate::scene::pick;
use crate::world::count_word;
use crate::{Group, Relation, SceneSpec, Size};

/// What a template is filled from.
pub(super) struct Context<'a, R> {
    pub(super) spec: &'a SceneSpec,
    pub(super) rng: &'a mut R,
    /// Whether single objects have an article.
    pub(super) articles: bool,
    /// Whether single objects are counted: "one" instead of the article.
    pub(super) numbers: bool,
}

impl<'a, R: Rng> Context<'a, R> {
    pub(super) fn new(spec: &'a SceneSpec, rng: &'a mut R) -> Self {
        Self {
            spec,
            rng,
            articles: true,
            numbers: false,
        }
    }

    fn field(&mut self, name: &str) -> String {
        let count = |i: usize| self.spec.groups.get(i).map_or(1, |g: &Group| g.count);
        let fixed = match name {
            "is" => verb(count(0)),
            "are_b" => verb(count(1)),
            "it" => {
                if count(0) == 1 {
                    "it"
                } else {
                    "them"
                }
            }
            "bg" => background_word(self.spec.background),
            "rel" => infix(self.spec.relation, self.rng),
            "inv" => infix(self.spec.relation.map(Relation::inverse), self.rng),
            "at_a" => position(self.spec.relation, self.rng),
            "at_b" => position(self.spec.relation.map(Relation::inverse), self.rng),
            "a" => return self.groups(0, 1),
            "b" => return self.groups(1, 2),
            "rest" => return self.groups(1, usize::MAX),
            "and_rest" if self.spec.groups.len() < 2 => "",
            "and_rest" => return format!("and {}", self.groups(1, usize::MAX)),
            "bare" => {
                return self
                    .spec
                    .groups
                    .first()
                    .map_or_else(String::new, |&g| self.described(g));
            }
            "g" => return self.groups(0, usize::MAX),
            _ => {
                let template = pick(filler(name), "", self.rng);
                return expand(template, self);
            }
        };
        fixed.to_owned()
    }

    /// The groups `from..to`, joined.
    fn groups(&mut self, from: usize, to: usize) -> String {
        let spec = self.spec;
        let phrases: Vec<String> = spec
            .groups
            .iter()
            .take(to)
            .skip(from)
            .map(|&group| self.group(group))
            .collect();
        match phrases.as_slice() {
            [first, second] if self.articles => {
                format!("{first} {} {second}", pick(JOIN_TWO, "and", self.rng))
            }
            [first, second, third] if self.articles => format!("{first}, {second} and {third}"),
            _ => phrases.join(", "),
        }
    }

    /// "two small red circles", "an orange star", or without its article "orange star".
    fn group(&mut self, group: Group) -> String {
        let described = self.described(group);
        if group.count > 1 || self.numbers {
            return format!("{} {described}", count_word(group.count));
        }
        if !self.articles {
            return described;
        }
        let article = if described.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        format!("{article} {described}")
    }

    /// The group without its number or article.
    fn described(&mut self, group: Group) -> String {
        let size = match group.size {
            None => "",
            Some(Size::Small) => pick(SMALL, "small", self.rng),
            Some(Size::Large) => pick(LARGE, "large", self.rng),
        };
        let noun = group.shape.noun(group.count);
        format!("{size} {} {noun}", group.colour)
            .trim_start()
            .to_owned()
    }
}

/// Replaces the fields of a template; runs of spaces collapse.
pub(super) fn expand<R: Rng>(template: &str, context: &mut Context<'_, R>) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(&context.field(name));
        rest = tail;
    }
    text.push_str(rest);
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" ,", ",")
}

/// A capital at the beginning and a full stop at the end.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

const fn verb(count: u8) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn infix(relation: Option<Relation>, rng: &mut impl Rng) -> &'static str {
    match relation {
        None => "",
        Some(Relation::Left) => pick(LEFT_OF, "", rng),
        Some(Relation::Right) => pick(RIGHT_OF, "", rng),
        Some(Relation::Above) => pick(ABOVE, "", rng),
        Some(Relation::Below) => pick(BELOW, "", rng),
    }
}

fn position(relation: Option<Relation>, rng: &mut impl RngExt) -> &'static str {
    match relation {
        None => "",
        Some(Relation::Left) => pick(AT_LEFT, "", rng),
        Some(Relation::Right) => pick(AT_RIGHT, "", rng),
        Some(Relation::Above) => pick(AT_TOP, "", rng),
        Some(Relation::Below) => pick(AT_BOTTOM, "", rng),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_have_capital_and_one_stop() {
        assert_eq!(sentence("a red circle"), "A red circle.");
        assert_eq!(sentence("a red circle."), "A red circle.");
    }
}
