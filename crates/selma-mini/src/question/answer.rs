//! The answer to a question about what is seen in a scene.

use super::{Noun, Question};
use crate::{Background, Colour, Relation, Scene, Shape, Size};

/// An object as seen, be it in a [`Scene`] or in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeenObject {
    /// The shape; `None` for a blot that is like none of them.
    pub shape: Option<Shape>,
    /// The colour.
    pub colour: Colour,
    /// The size.
    pub size: Size,
    /// Centre, pixels from the left edge.
    pub x: f32,
    /// Centre, pixels from the top edge.
    pub y: f32,
}

/// What is seen in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenScene {
    /// The background; `None` where it is like none of them.
    pub background: Option<Background>,
    /// The objects, in no particular order.
    pub objects: Vec<SeenObject>,
}

impl From<&Scene> for SeenScene {
    fn from(scene: &Scene) -> Self {
        let object = |o: &crate::Object| SeenObject {
            shape: Some(o.shape),
            colour: o.colour,
            size: o.size,
            x: o.x,
            y: o.y,
        };
        Self {
            background: Some(scene.background),
            objects: scene.objects.iter().map(object).collect(),
        }
    }
}

impl SeenScene {
    /// Whether the answer is yes.
    ///
    /// - Existence: at least one object of the noun is there.
    /// - Colour, size: of a singular noun, that one of its objects is so; of a plural one, that there are some and all
    ///   are so.
    /// - Count: exactly so many objects of the noun are there.
    /// - Relation: the mean position of the first noun's objects lies at least 6 pixels to that side of the mean
    ///   position of the second's, and further than it lies off to either side across.
    /// - Background: it is so.
    pub fn answer(&self, question: Question) -> bool {
        match question {
            Question::Exists(noun) => self.matching(noun).next().is_some(),
            Question::HasColour(noun, colour) => self.holds(noun, |o| o.colour == colour),
            Question::HasSize(noun, size) => self.holds(noun, |o| o.size == size),
            Question::Count(noun, count) => self.matching(noun).count() == usize::from(count),
            Question::Lies(a, relation, b) => self.lies(a, relation, b),
            Question::BackgroundIs(background) => self.background == Some(background),
        }
    }

    fn matching(&self, noun: Noun) -> impl Iterator<Item = &SeenObject> {
        self.objects.iter().filter(move |o| {
            o.shape == Some(noun.shape) && noun.colour.is_none_or(|c| c == o.colour)
        })
    }

    fn holds(&self, noun: Noun, test: impl Fn(&SeenObject) -> bool) -> bool {
        if noun.plural {
            self.matching(noun).next().is_some() && self.matching(noun).all(test)
        } else {
            self.matching(noun).any(test)
        }
    }

    fn lies(&self, a: Noun, relation: Relation, b: Noun) -> bool {
        let (Some((ax, ay)), Some((bx, by))) = (self.mean_position(a), self.mean_position(b))
        else {
            return false;
        };
        let (along, across) = match relation {
            Relation::Left => (bx - ax, by - ay),
            Relation::Right => (ax - bx, by - ay),
            Relation::Above => (by - ay, bx - ax),
            Relation::Below => (ay - by, bx - ax),
        };
        along >= 6.0 && along >= across.abs()
    }

    fn mean_position(&self, noun: Noun) -> Option<(f32, f32)> {
        let (n, x, y) = self
            .matching(noun)
            .fold((0.0, 0.0, 0.0), |(n, x, y), o| (n + 1.0, x + o.x, y + o.y));
        (n > 0.0).then(|| (x / n, y / n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(objects: &[(Colour, Shape, Size, f32, f32)]) -> SeenScene {
        let objects = objects
            .iter()
            .map(|&(colour, shape, size, x, y)| SeenObject {
                shape: Some(shape),
                colour,
                size,
                x,
                y,
            })
            .collect();
        SeenScene {
            background: Some(Background::Grey),
            objects,
        }
    }

    fn ask(scene: &SeenScene, question: &str) -> bool {
        scene.answer(question.parse().unwrap())
    }

    #[test]
    fn answers_follow_the_scene() {
        let seen = scene(&[
            (Colour::Red, Shape::Circle, Size::Small, 15.0, 30.0),
            (Colour::Blue, Shape::Star, Size::Large, 48.0, 20.0),
            (Colour::Red, Shape::Star, Size::Large, 48.0, 45.0),
        ]);
        for yes in [
            "Is there a circle?",
            "Is there a blue star?",
            "Are there two stars?",
            "Is the circle red?",
            "Is the star red?",
            "Are the stars large?",
            "Is the circle to the left of the blue star?",
            "Are the stars to the right of the circle?",
            "Is the blue star above the red star?",
            "Is the background grey?",
        ] {
            assert!(ask(&seen, yes), "{yes}");
        }
        for no in [
            "Is there a ring?",
            "Is there a blue circle?",
            "Are there three stars?",
            "Are there two blue stars?",
            "Is the circle blue?",
            "Are the stars red?",
            "Are the stars small?",
            "Are the rings small?",
            "Is the circle above the star?",
            "Is the circle to the right of the star?",
            "Is the circle to the left of the ring?",
            "Is the background navy?",
        ] {
            assert!(!ask(&seen, no), "{no}");
        }
    }

    #[test]
    fn a_blot_is_no_shape_and_an_odd_background_none() {
        let mut seen = scene(&[(Colour::Red, Shape::Circle, Size::Small, 15.0, 30.0)]);
        seen.objects[0].shape = None;
        seen.background = None;
        assert!(!ask(&seen, "Is there a circle?"));
        assert!(!ask(&seen, "Is the background grey?"));
    }
}
