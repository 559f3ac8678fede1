//! Yes/no questions about a scene: their wording, their making from a specification, and their true answers.

mod answer;
mod generate;
mod parse;

use std::fmt;

pub use answer::{SeenObject, SeenScene};
pub use generate::questions;

use crate::world::count_word;
use crate::{Background, Colour, Relation, Shape, Size};

/// The objects that a question speaks of: a shape, and its colour where the shape alone would be ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Noun {
    /// The colour, where it is needed to tell two groups apart.
    pub colour: Option<Colour>,
    /// The shape.
    pub shape: Shape,
    /// Whether several objects are meant.
    pub plural: bool,
}

/// A yes/no question of the miniature world. [`Display`](fmt::Display) gives its wording, [`FromStr`](std::str::FromStr)
/// reads it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// "Is there a circle?", "Are there hearts?"
    Exists(Noun),
    /// "Is the circle red?", "Are the hearts red?"
    HasColour(Noun, Colour),
    /// "Is the circle small?"
    HasSize(Noun, Size),
    /// "Are there three hearts?"
    Count(Noun, u8),
    /// "Is the circle to the left of the star?"
    Lies(Noun, Relation, Noun),
    /// "Is the background grey?"
    BackgroundIs(Background),
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(colour) = self.colour {
            write!(f, "{colour} ")?;
        }
        f.write_str(self.shape.noun(if self.plural { 2 } else { 1 }))
    }
}

impl Noun {
    const fn verb(self) -> &'static str {
        if self.plural { "Are" } else { "Is" }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exists(noun) if noun.plural => write!(f, "Are there {noun}?"),
            Self::Exists(noun) => {
                let article = if noun.colour == Some(Colour::Orange) {
                    "an"
                } else {
                    "a"
                };
                write!(f, "Is there {article} {noun}?")
            }
            Self::HasColour(noun, colour) => write!(f, "{} the {noun} {colour}?", noun.verb()),
            Self::HasSize(noun, size) => write!(f, "{} the {noun} {size}?", noun.verb()),
            Self::Count(noun, count) => write!(f, "Are there {} {noun}?", count_word(count)),
            Self::Lies(a, relation, b) => {
                write!(f, "{} the {a} {} the {b}?", a.verb(), preposition(relation))
            }
            Self::BackgroundIs(background) => write!(f, "Is the background {background}?"),
        }
    }
}

/// A relation as a preposition.
const fn preposition(relation: Relation) -> &'static str {
    match relation {
        Relation::Left => "to the left of",
        Relation::Right => "to the right of",
        Relation::Above => "above",
        Relation::Below => "below",
    }
}
