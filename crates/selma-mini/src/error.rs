//! What can go wrong in the miniature world.

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MiniError {
    /// A specification with no group, or more than three.
    #[error("a scene has 1 to 3 groups, found {found}")]
    GroupCount {
        /// Number of groups found.
        found: usize,
    },
    /// A group of zero objects, or more than four objects in all.
    #[error("a scene has 1 to 4 objects and no empty group, found counts {found:?}")]
    ObjectCount {
        /// The counts of the groups.
        found: Vec<u8>,
    },
    /// Two groups of the same colour and shape, which no question could tell apart.
    #[error("two groups are both {colour} {shape}")]
    DuplicateGroup {
        /// The shared colour.
        colour: crate::Colour,
        /// The shared shape.
        shape: crate::Shape,
    },
    /// A relation needs exactly two groups of at most two objects.
    #[error(
        "relation `{relation}` needs two groups of at most two objects, found counts {found:?}"
    )]
    Relation {
        /// The relation.
        relation: crate::Relation,
        /// The counts of the groups.
        found: Vec<u8>,
    },
    /// An unknown name where one of a fixed set was expected.
    #[error("unknown {what} `{found}`")]
    UnknownName {
        /// What was expected.
        what: &'static str,
        /// The name found.
        found: String,
    },
    /// The oracle sees pictures of one size only.
    #[error("expected an image of 64 by 64 pixels, found {width} by {height}")]
    ImageSize {
        /// Width found.
        width: u32,
        /// Height found.
        height: u32,
    },
    /// A part of the world has fewer different specifications than were wanted.
    #[error("no more than {found} of {wanted} different prompts were found")]
    Exhausted {
        /// Prompts found.
        found: usize,
        /// Prompts wanted.
        wanted: usize,
    },
}
