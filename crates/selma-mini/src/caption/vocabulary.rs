//! The closed vocabulary of the grammar.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::words::{
    ABOVE, AT_BOTTOM, AT_LEFT, AT_RIGHT, AT_TOP, BELOW, COCO, COUNT, COUNT_PAIR, FILLERS, JOIN_TWO,
    LARGE, LEFT_OF, NARRATIVE, Phrases, RIGHT_OF, SMALL, TAGS, WHOOPS,
};
use crate::world::count_word;
use crate::{Background, Colour, Shape};

/// Every word that a caption can contain, in lower case and sorted; besides these there are only the comma and the
/// full stop.
pub fn vocabulary() -> Vec<&'static str> {
    set().iter().copied().collect()
}

/// Whether the grammar knows this word (in lower case).
pub(super) fn is_known(word: &str) -> bool {
    set().contains(word)
}

fn set() -> &'static BTreeSet<&'static str> {
    static WORDS: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let lists = [
            SMALL, LARGE, JOIN_TWO, LEFT_OF, RIGHT_OF, ABOVE, BELOW, AT_LEFT, AT_RIGHT, AT_TOP,
            AT_BOTTOM,
        ];
        let styles = [&COCO, &WHOOPS, &COUNT, &NARRATIVE, &TAGS];
        let styles = styles.iter().flat_map(
            |Phrases {
                 one,
                 several,
                 relation,
                 background,
                 extra,
             }| { [*one, *several, *relation, *background, *extra] },
        );
        let phrases = lists
            .into_iter()
            .chain(styles)
            .chain([COUNT_PAIR])
            .chain(FILLERS.iter().map(|(_, list)| *list));
        let mut words: BTreeSet<&'static str> = phrases
            .flatten()
            .flat_map(|phrase| literal_words(phrase))
            .collect();
        words.extend(Shape::ALL.iter().flat_map(|s| [s.word(), s.plural()]));
        words.extend(Colour::ALL.iter().map(|c| c.word()));
        words.extend(Background::ALL.iter().map(|b| b.word()));
        words.extend((1..=4).map(count_word));
        words.extend(["a", "an", "and", "is", "are", "it", "them"]);
        words
    })
}

/// The words of a template outside its fields.
fn literal_words(template: &'static str) -> impl Iterator<Item = &'static str> {
    template
        .split('{')
        .enumerate()
        .map(|(i, piece)| {
            if i == 0 {
                piece
            } else {
                piece.split_once('}').map_or("", |(_, after)| after)
            }
        })
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_matches([',', '.']))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Style;
    use crate::caption::caption;
    use crate::testing::any_spec;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn it_is_small_and_clean() {
        let words = vocabulary();
        assert!(words.len() < 250, "{} words", words.len());
        for word in words {
            assert!(
                word.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
                "{word:?}"
            );
        }
    }

    #[test]
    fn captions_use_every_word_and_no_other() {
        let mut seen = BTreeSet::new();
        for &style in Style::ALL {
            for seed in 0..3000 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let text = caption(&any_spec(&mut rng), style, &mut rng).to_lowercase();
                seen.extend(
                    text.split_whitespace()
                        .map(|w| w.trim_matches([',', '.']).to_owned()),
                );
            }
        }
        let expected: BTreeSet<String> = vocabulary().into_iter().map(str::to_owned).collect();
        assert_eq!(seen, expected);
    }
}
