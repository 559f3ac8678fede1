//! What a caption says: groups of like objects, a relation between two groups, and a background.

use serde::{Deserialize, Serialize};

use crate::{Background, Colour, MiniError, Relation, Shape, Size};

/// A number of objects of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many, 1 to 4.
    pub count: u8,
    /// Their size, where the caption states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Their colour.
    pub colour: Colour,
    /// Their shape.
    pub shape: Shape,
}

/// What a caption says about a scene. What it leaves open (a size, the background, the places) may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneSpec {
    /// One to three groups, no two of the same colour and shape, four objects in all at most.
    pub groups: Vec<Group>,
    /// How the first group lies to the second; only with exactly two groups of at most two objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// The background, where the caption states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
}

/// The disjoint parts that specifications fall into; see [`SceneSpec::partition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// Seen in training and written by the grammar model (85%).
    Train,
    /// Held out for choosing settings such as the guidance scale (5%).
    Validation,
    /// Held out for the final figures (10%).
    Test,
}

impl SceneSpec {
    /// Checks the rules stated on the fields.
    ///
    /// # Errors
    /// The rule that is broken, with what was found.
    pub fn validate(&self) -> Result<(), MiniError> {
        if self.groups.is_empty() || self.groups.len() > 3 {
            return Err(MiniError::GroupCount {
                found: self.groups.len(),
            });
        }
        let counts: Vec<u8> = self.groups.iter().map(|g| g.count).collect();
        if counts.contains(&0) || counts.iter().map(|&c| u32::from(c)).sum::<u32>() > 4 {
            return Err(MiniError::ObjectCount { found: counts });
        }
        for (i, a) in self.groups.iter().enumerate() {
            if self
                .groups
                .iter()
                .skip(i + 1)
                .any(|b| (a.colour, a.shape) == (b.colour, b.shape))
            {
                return Err(MiniError::DuplicateGroup {
                    colour: a.colour,
                    shape: a.shape,
                });
            }
        }
        match self.relation {
            Some(relation) if counts.len() != 2 || counts.iter().any(|&c| c > 2) => {
                Err(MiniError::Relation {
                    relation,
                    found: counts,
                })
            }
            _ => Ok(()),
        }
    }

    /// The number of objects in all.
    pub fn total(&self) -> u8 {
        self.groups.iter().map(|g| g.count).sum()
    }

    /// The same statement in its normal form: "right of" turned into "left of", "below" into "above", and groups
    /// without a relation in sorted order. Two captions that say the same have equal normal forms.
    pub fn canonical(&self) -> Self {
        let mut spec = self.clone();
        match spec.relation {
            Some(relation @ (Relation::Right | Relation::Below)) => {
                spec.groups.reverse();
                spec.relation = Some(relation.inverse());
            }
            Some(_) => {}
            None => spec.groups.sort_unstable(),
        }
        spec
    }

    /// The part that this specification belongs to: a stable hash of the normal form without the background, modulo
    /// 20. Leaving the background out makes the split stricter: no held-out arrangement is seen on any background.
    pub fn partition(&self) -> Partition {
        match self.content_hash() % 20 {
            0 | 1 => Partition::Test,
            2 => Partition::Validation,
            _ => Partition::Train,
        }
    }

    /// FNV-1a over the words of the normal form without the background, finished by an avalanche step so that the
    /// low digits are well mixed. Stable across platforms and versions.
    fn content_hash(&self) -> u64 {
        let spec = self.canonical();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut feed = |word: &str| {
            for byte in word.bytes().chain([b' ']) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for group in &spec.groups {
            feed(crate::world::count_word(group.count));
            feed(group.size.map_or("-", Size::word));
            feed(group.colour.word());
            feed(group.shape.word());
        }
        feed(spec.relation.map_or("-", Relation::word));
        mix(hash)
    }

    /// Whether the training world never or hardly shows this: see [`Group::is_unusual`] and
    /// [`SceneSpec::is_top_heavy`].
    pub fn is_unusual(&self) -> bool {
        self.is_top_heavy() || self.groups.iter().any(Group::is_unusual)
    }

    /// Whether something stated to be large is stated to be above something stated to be small: in the training
    /// world heavy things lie below light ones.
    pub fn is_top_heavy(&self) -> bool {
        let spec = self.canonical();
        match (spec.relation, spec.groups.as_slice()) {
            (Some(Relation::Above), [upper, lower]) => {
                upper.size == Some(Size::Large) && lower.size == Some(Size::Small)
            }
            _ => false,
        }
    }
}

impl Group {
    /// Whether this pairing of colour and shape is one of the sixteen (of 64) that the training world never shows in
    /// ordinary captions: each shape avoids two colours, each colour two shapes.
    pub const fn is_unusual(&self) -> bool {
        matches!(
            (self.shape, self.colour),
            (Shape::Circle, Colour::Purple | Colour::White)
                | (Shape::Square, Colour::Pink | Colour::Yellow)
                | (Shape::Triangle, Colour::Blue | Colour::Pink)
                | (Shape::Star, Colour::Green | Colour::Purple)
                | (Shape::Heart, Colour::Blue | Colour::Green)
                | (Shape::Cross, Colour::Orange | Colour::Yellow)
                | (Shape::Ring, Colour::Red | Colour::White)
                | (Shape::Diamond, Colour::Orange | Colour::Red)
        )
    }
}

/// The finishing step of SplitMix64.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(count: u8, colour: Colour, shape: Shape) -> Group {
        Group {
            count,
            size: None,
            colour,
            shape,
        }
    }

    fn pair(relation: Option<Relation>) -> SceneSpec {
        SceneSpec {
            groups: vec![
                group(1, Colour::Red, Shape::Star),
                group(1, Colour::Blue, Shape::Circle),
            ],
            relation,
            background: None,
        }
    }

    #[test]
    fn opposite_wordings_share_normal_form_and_partition() {
        let mut swapped = pair(Some(Relation::Right));
        swapped.groups.reverse();
        let spec = pair(Some(Relation::Left));
        assert_eq!(spec.canonical(), swapped.canonical());
        assert_eq!(spec.partition(), swapped.partition());
        assert_ne!(spec.canonical(), pair(Some(Relation::Right)).canonical());
        let mut unordered = pair(None);
        unordered.groups.reverse();
        assert_eq!(unordered.canonical(), pair(None).canonical());
    }

    #[test]
    fn background_does_not_move_a_spec_across_the_split() {
        let mut spec = pair(None);
        let part = spec.partition();
        for &background in Background::ALL {
            spec.background = Some(background);
            assert_eq!(spec.partition(), part);
        }
    }

    #[test]
    fn invalid_specs_are_refused() {
        let mut spec = pair(None);
        assert_eq!(spec.validate(), Ok(()));
        spec.groups[1] = spec.groups[0];
        assert!(matches!(
            spec.validate(),
            Err(MiniError::DuplicateGroup { .. })
        ));
        spec = pair(None);
        spec.groups[0].count = 4;
        assert!(matches!(
            spec.validate(),
            Err(MiniError::ObjectCount { .. })
        ));
        spec.groups[0].count = 0;
        assert!(matches!(
            spec.validate(),
            Err(MiniError::ObjectCount { .. })
        ));
        spec = pair(Some(Relation::Left));
        spec.groups[0].count = 3;
        assert!(matches!(spec.validate(), Err(MiniError::Relation { .. })));
        spec.groups.truncate(1);
        assert!(matches!(spec.validate(), Err(MiniError::Relation { .. })));
        spec.groups.clear();
        assert!(matches!(
            spec.validate(),
            Err(MiniError::GroupCount { found: 0 })
        ));
    }

    #[test]
    fn every_shape_and_colour_has_two_unusual_partners() {
        for &shape in Shape::ALL {
            assert_eq!(
                Colour::ALL
                    .iter()
                    .filter(|&&c| group(1, c, shape).is_unusual())
                    .count(),
                2
            );
        }
        for &colour in Colour::ALL {
            assert_eq!(
                Shape::ALL
                    .iter()
                    .filter(|&&s| group(1, colour, s).is_unusual())
                    .count(),
                2
            );
        }
    }

    #[test]
    fn top_heavy_needs_both_sizes() {
        let mut spec = pair(Some(Relation::Below));
        assert!(!spec.is_top_heavy());
        spec.groups[0].size = Some(Size::Small);
        spec.groups[1].size = Some(Size::Large);
        assert!(spec.is_top_heavy());
        spec.relation = Some(Relation::Above);
        assert!(!spec.is_top_heavy());
    }
}
