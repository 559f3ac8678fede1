//! Captions that a mirrored picture contradicts.

/// Words for a side, each also as the first part of a compound such as `left-hand`.
const SIDES: [&str; 8] = [
    "left",
    "right",
    "leftmost",
    "rightmost",
    "leftward",
    "rightward",
    "leftwards",
    "rightwards",
];

/// Whether a caption, in English, speaks of left or right, so that it may be wrong for a mirrored picture. It is meant for a warning: `right now` and `the train has left`
/// are found, too.
///
/// ```
/// use selma_dataset::speaks_of_sides;
///
/// assert!(speaks_of_sides("a red cube to the Left of a left-handed man"));
/// assert!(!speaks_of_sides("leftovers on a bright plate"));
/// ```
#[must_use]
pub fn speaks_of_sides(caption: &str) -> bool {
    caption
        .split(|letter: char| !letter.is_alphanumeric())
        .any(|word| SIDES.iter().any(|side| word.eq_ignore_ascii_case(side)))
}

#[cfg(test)]
mod tests {
    use super::speaks_of_sides;

    #[test]
    fn sides_are_found_as_words() {
        for caption in [
            "LEFT",
            "the rightmost of three",
            "on its right, a dog",
            "the right-hand shelf",
            "looking leftwards",
            "the cat's left\u{2019}s",
        ] {
            assert!(speaks_of_sides(caption), "{caption}");
        }
        for caption in [
            "",
            "a cleft rock",
            "brightly lit",
            "copyright",
            "rightly so",
        ] {
            assert!(!speaks_of_sides(caption), "{caption}");
        }
    }
}
