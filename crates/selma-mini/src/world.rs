//! The attributes of the world: shapes, colours, sizes, backgrounds and relations, with the words that name them.

use serde::{Deserialize, Serialize};

macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The English word (also the serde name).
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

attribute! {
    /// The shape of an object.
    Shape {
        /// A filled disc.
        Circle => "circle",
        /// An axis-parallel square.
        Square => "square",
        /// An upright triangle.
        Triangle => "triangle",
        /// A five-pointed star, one point up.
        Star => "star",
        /// A heart, point down.
        Heart => "heart",
        /// A plus-shaped cross.
        Cross => "cross",
        /// A disc with a round hole.
        Ring => "ring",
        /// A rhombus, taller than wide, as on a playing card.
        Diamond => "diamond",
    }
}

attribute! {
    /// The colour of an object.
    Colour {
        /// Red.
        Red => "red",
        /// Orange.
        Orange => "orange",
        /// Yellow.
        Yellow => "yellow",
        /// Green.
        Green => "green",
        /// Blue.
        Blue => "blue",
        /// Purple.
        Purple => "purple",
        /// Pink.
        Pink => "pink",
        /// White.
        White => "white",
    }
}

attribute! {
    /// The size of an object, see [`Size::radius`].
    Size {
        /// 8.5 pixels in radius.
        Small => "small",
        /// 13 pixels in radius.
        Large => "large",
    }
}

attribute! {
    /// The flat colour behind the objects. No background has the name or the colour of an object.
    Background {
        /// Mid grey.
        Grey => "grey",
        /// Very dark blue.
        Navy => "navy",
        /// Light brown.
        Sand => "sand",
        /// Pale green.
        Mint => "mint",
    }
}

attribute! {
    /// How the first group of a scene lies to the second.
    Relation {
        /// The first is to the left of the second.
        Left => "left",
        /// The first is to the right of the second.
        Right => "right",
        /// The first is above the second.
        Above => "above",
        /// The first is below the second.
        Below => "below",
    }
}

impl Shape {
    /// The plural noun.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Star => "stars",
            Self::Heart => "hearts",
            Self::Cross => "crosses",
            Self::Ring => "rings",
            Self::Diamond => "diamonds",
        }
    }

    /// The singular for a count of one, else the plural.
    pub const fn noun(self, count: u8) -> &'static str {
        if count == 1 {
            self.word()
        } else {
            self.plural()
        }
    }

    /// The shape that a singular or plural noun names, with whether it was plural.
    pub fn from_noun(word: &str) -> Option<(Self, bool)> {
        Self::ALL.iter().find_map(|&shape| {
            if shape.word() == word {
                Some((shape, false))
            } else if shape.plural() == word {
                Some((shape, true))
            } else {
                None
            }
        })
    }
}

impl Colour {
    /// The sRGB value objects of this colour are painted with.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [215, 35, 40],
            Self::Orange => [245, 130, 25],
            Self::Yellow => [250, 220, 50],
            Self::Green => [35, 145, 60],
            Self::Blue => [40, 85, 225],
            Self::Purple => [130, 45, 165],
            Self::Pink => [255, 120, 190],
            Self::White => [250, 250, 250],
        }
    }

    /// The colour that this one is most often taken for; and that one's is this.
    #[must_use]
    pub const fn look_alike(self) -> Self {
        match self {
            Self::Red => Self::Orange,
            Self::Orange => Self::Red,
            Self::Yellow => Self::White,
            Self::White => Self::Yellow,
            Self::Green => Self::Blue,
            Self::Blue => Self::Green,
            Self::Purple => Self::Pink,
            Self::Pink => Self::Purple,
        }
    }
}

impl Background {
    /// The sRGB value of the background.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Grey => [125, 125, 125],
            Self::Navy => [60, 75, 125],
            Self::Sand => [185, 165, 125],
            Self::Mint => [130, 190, 165],
        }
    }
}

impl Size {
    /// The radius, in pixels, that objects of this size are drawn with.
    pub const fn radius(self) -> f32 {
        match self {
            Self::Small => 8.5,
            Self::Large => 13.0,
        }
    }

    /// The size that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Small => Self::Large,
            Self::Large => Self::Small,
        }
    }

    /// The size that a measured radius in pixels belongs to: the border lies at the geometric mean of the two radii.
    pub fn of_radius(radius: f32) -> Self {
        if radius < 10.51 {
            Self::Small
        } else {
            Self::Large
        }
    }
}

impl Relation {
    /// The relation seen from the other side: left becomes right, above becomes below.
    pub const fn inverse(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Whether the relation orders along x (left, right) instead of y.
    pub const fn is_horizontal(self) -> bool {
        matches!(self, Self::Left | Self::Right)
    }
}

/// The word of a count from one to four.
pub const fn count_word(count: u8) -> &'static str {
    match count {
        2 => "two",
        3 => "three",
        4 => "four",
        _ => "one",
    }
}

/// The count that a number word names.
pub fn count_of(word: &str) -> Option<u8> {
    match word {
        "one" => Some(1),
        "two" => Some(2),
        "three" => Some(3),
        "four" => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: [u8; 3], b: [u8; 3]) -> f64 {
        let d: i32 = a
            .iter()
            .zip(b)
            .map(|(&x, y)| (i32::from(x) - i32::from(y)).pow(2))
            .sum();
        f64::from(d).sqrt()
    }

    #[test]
    fn colours_and_backgrounds_are_mutually_distinct() {
        let colours: Vec<[u8; 3]> = Colour::ALL.iter().map(|c| c.rgb()).collect();
        let backgrounds: Vec<[u8; 3]> = Background::ALL.iter().map(|b| b.rgb()).collect();
        let check = |a: [u8; 3], others: &[[u8; 3]], least: f64| {
            for &b in others {
                let apart = distance(a, b);
                assert!(apart > least, "{a:?} and {b:?} are only {apart} apart");
            }
        };
        for (i, &colour) in colours.iter().enumerate() {
            check(colour, &colours[..i], 80.0);
            check(colour, &backgrounds, 80.0);
        }
        // The backgrounds are mild, so nearer to each other; a whole rim says which it is.
        for (i, &background) in backgrounds.iter().enumerate() {
            check(background, &backgrounds[..i], 70.0);
        }
    }

    #[test]
    fn nouns_round_trip() {
        for &shape in Shape::ALL {
            assert_eq!(Shape::from_noun(shape.noun(1)), Some((shape, false)));
            assert_eq!(Shape::from_noun(shape.noun(3)), Some((shape, true)));
        }
        assert_eq!(Shape::from_noun("banana"), None);
    }

    #[test]
    fn serde_names_are_the_words() {
        for &colour in Colour::ALL {
            assert_eq!(
                serde_json::to_string(&colour).unwrap(),
                format!("\"{colour}\"")
            );
        }
        assert!(serde_json::from_str::<Shape>("\"banana\"").is_err());
    }

    #[test]
    fn the_border_of_the_sizes_lies_between_them() {
        for error in [0.9, 1.0, 1.1] {
            for &size in Size::ALL {
                assert_eq!(Size::of_radius(error * size.radius()), size);
            }
        }
    }
}
