//! Reading a caption back into the specification that it states.
//!
//! The parser looks for what has meaning: noun phrases, relation words, background words. All other words must belong
//! to the vocabulary and are skipped. A text that breaks off inside a phrase, names a relation without two groups, or
//! contradicts itself is no caption.

use super::vocabulary::is_known;
use crate::world::count_of;
use crate::{Background, Colour, Group, Relation, SceneSpec, Shape, Size};

/// The specification that a caption states, or `None` where the text is not a caption of the grammar (an unknown word,
/// a broken noun phrase, a dangling relation, no object at all, or an impossible scene). Case and punctuation do not
/// matter. Inverts [`caption`](super::caption) for every style.
///
/// ```
/// use selma_mini::{Relation, parse_caption};
///
/// let spec = parse_caption("A small red circle to the left of a blue star.").unwrap();
/// assert_eq!(spec.relation, Some(Relation::Left));
/// assert_eq!(parse_caption("A small red circle to the left of a"), None);
/// assert_eq!(parse_caption("Sure! Here are 20 more image descriptions:"), None);
/// ```
pub fn parse_caption(text: &str) -> Option<SceneSpec> {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|w| {
            w.trim_matches([',', '.', '!', '?', ':', ';', '"'])
                .to_lowercase()
        })
        .filter(|w| !w.is_empty())
        .collect();
    let mut words = Words {
        words: &words,
        next: 0,
    };
    let mut background = None;
    let mut marks = Vec::new();
    while let Some(word) = words.peek(0) {
        if !is_known(word) {
            return None;
        }
        if let Some(found) = Background::ALL.iter().copied().find(|b| b.word() == word) {
            if background.is_some_and(|b| b != found) {
                return None;
            }
            background = Some(found);
            words.next += 1;
        } else if begins_group(word) {
            marks.push(Mark::Group(words.group()?));
        } else if let Some(mark) = words.relation() {
            marks.push(mark);
        } else {
            words.next += 1;
        }
    }
    let (groups, relation) = arrange(&marks)?;
    let spec = SceneSpec {
        groups,
        relation,
        background,
    };
    spec.validate().ok().map(|()| spec)
}

/// What has meaning for the arrangement, in the order of the text.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Group(Group),
    /// "to the left of": with a pronoun ("of it") the next group lies so to the one before.
    Infix(Relation, bool),
    /// "on the left", for the group that it stands by.
    Place(Relation),
}

/// The groups and how the first lies to the second.
fn arrange(marks: &[Mark]) -> Option<(Vec<Group>, Option<Relation>)> {
    use Mark::{Group as G, Infix, Place};
    Some(match *marks {
        [G(a), Infix(relation, false), G(b)] => (vec![a, b], Some(relation)),
        [G(a), Infix(relation, true), G(b)] => (vec![a, b], Some(relation.inverse())),
        [Infix(relation, false), G(a), G(b)] => (vec![a, b], Some(relation.inverse())),
        [G(a), Place(p), G(b), Place(q)] | [Place(p), G(a), Place(q), G(b)] if q == p.inverse() => {
            (vec![a, b], Some(p))
        }
        _ => {
            let groups = marks.iter().map(|mark| {
                if let G(group) = mark {
                    Some(*group)
                } else {
                    None
                }
            });
            (groups.collect::<Option<Vec<_>>>()?, None)
        }
    })
}

fn colour_of(word: &str) -> Option<Colour> {
    Colour::ALL.iter().copied().find(|c| c.word() == word)
}

fn size_of(word: &str) -> Option<Size> {
    match word {
        "small" | "tiny" => Some(Size::Small),
        "large" | "big" => Some(Size::Large),
        _ => None,
    }
}

fn begins_group(word: &str) -> bool {
    word == "pair"
        || count_of(word).is_some()
        || size_of(word).is_some()
        || colour_of(word).is_some()
        || Shape::from_noun(word).is_some()
}

struct Words<'a> {
    words: &'a [String],
    next: usize,
}

impl Words<'_> {
    fn peek(&self, ahead: usize) -> Option<&str> {
        self.words.get(self.next + ahead).map(String::as_str)
    }

    /// Takes the next word if `read` makes something of it.
    fn take<T>(&mut self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.peek(0).and_then(read);
        if value.is_some() {
            self.next += 1;
        }
        value
    }

    fn accept(&mut self, word: &str) -> bool {
        self.take(|w| (w == word).then_some(())).is_some()
    }

    /// `[number | "pair of"] [size] colour noun`; the number agrees with the noun.
    fn group(&mut self) -> Option<Group> {
        let count = if self.accept("pair") {
            self.accept("of").then_some(2)?
        } else {
            self.take(count_of).unwrap_or(1)
        };
        let size = self.take(size_of);
        let colour = self.take(colour_of)?;
        let (shape, plural) = self.take(Shape::from_noun)?;
        (plural == (count > 1)).then_some(Group {
            count,
            size,
            colour,
            shape,
        })
    }

    fn relation(&mut self) -> Option<Mark> {
        let relation = self.take(|word| match word {
            "left" => Some((Relation::Left, true)),
            "right" => Some((Relation::Right, true)),
            "above" | "over" => Some((Relation::Above, false)),
            "below" | "under" | "beneath" => Some((Relation::Below, false)),
            "top" | "upper" => Some((Relation::Above, true)),
            "bottom" | "lower" => Some((Relation::Below, true)),
            _ => None,
        });
        let (relation, may_be_place) = relation?;
        if may_be_place {
            self.accept("side");
            if !self.accept("of") || self.peek(0) == Some("the") {
                return Some(Mark::Place(relation));
            }
        }
        let pronoun = self.accept("it") || self.accept("them");
        Some(Mark::Infix(relation, pronoun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(text: &str) -> Option<Relation> {
        parse_caption(text)
            .unwrap_or_else(|| panic!("not parsed: {text}"))
            .relation
    }

    #[test]
    fn relations_in_every_wording() {
        for text in [
            "a red circle to the left of a blue star",
            "red circle on the left, blue star on the right",
            "To the right of a red circle is a blue star.",
            "On the left side of the image there is a red circle and on the right there is a blue star.",
            "We can see a red circle. To the right of it we can see a blue star.",
        ] {
            assert_eq!(relation(text), Some(Relation::Left), "{text}");
        }
        assert_eq!(
            relation("a red circle in the lower part and a blue star at the top"),
            Some(Relation::Below)
        );
        assert_eq!(
            relation("two red circles. over them there is a blue star"),
            Some(Relation::Below)
        );
        assert_eq!(relation("a red circle and a blue star"), None);
    }

    #[test]
    fn what_is_no_caption_is_refused() {
        for text in [
            "",
            "a picture of",
            "a red",
            "a red circles",
            "two red circle",
            "a circle",
            "small circle red",
            "a red circle to the left of",
            "a red circle on the left and a blue star",
            "a red circle on the left and a blue star on the left",
            "a red circle on the left and a blue star at the top",
            "a red circle and a red circle",
            "five red circles",
            "four red circles and a blue star",
            "a red circle on a grey background with a navy wall",
            "a red giraffe",
            "left of above",
        ] {
            assert_eq!(parse_caption(text), None, "{text}");
        }
    }
}
