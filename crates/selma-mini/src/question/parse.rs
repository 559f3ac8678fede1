//! Reading a question's wording.

use std::str::FromStr;

use super::{Noun, Question};
use crate::world::count_of;
use crate::{Background, Colour, MiniError, Relation, Shape, Size};

impl FromStr for Question {
    type Err = MiniError;

    /// Case and the question mark do not matter; besides the wordings of [`Question`] there is no other.
    fn from_str(text: &str) -> Result<Self, MiniError> {
        let lower = text.trim().trim_end_matches('?').to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        read(&words).ok_or_else(|| MiniError::UnknownName {
            what: "question",
            found: text.to_owned(),
        })
    }
}

fn read(words: &[&str]) -> Option<Question> {
    match words {
        ["is", "there", "a" | "an", rest @ ..] => all(rest, false).map(Question::Exists),
        ["are", "there", first, rest @ ..] => match count_of(first) {
            Some(count) => all(rest, true).map(|noun| Question::Count(noun, count)),
            None => {
                let [_, _, rest @ ..] = words else {
                    return None;
                };
                all(rest, true).map(Question::Exists)
            }
        },
        ["is", "the", "background", word] => Background::ALL
            .iter()
            .find(|b| b.word() == *word)
            .map(|&b| Question::BackgroundIs(b)),
        [verb @ ("is" | "are"), "the", rest @ ..] => {
            let (noun, rest) = noun(rest)?;
            if noun.plural != (*verb == "are") {
                return None;
            }
            match rest {
                [word] => {
                    let colour = Colour::ALL.iter().find(|c| c.word() == *word);
                    let size = Size::ALL.iter().find(|s| s.word() == *word);
                    colour
                        .map(|&c| Question::HasColour(noun, c))
                        .or_else(|| size.map(|&s| Question::HasSize(noun, s)))
                }
                ["to", "the", "left", "of", "the", rest @ ..] => lies(noun, Relation::Left, rest),
                ["to", "the", "right", "of", "the", rest @ ..] => lies(noun, Relation::Right, rest),
                ["above", "the", rest @ ..] => lies(noun, Relation::Above, rest),
                ["below", "the", rest @ ..] => lies(noun, Relation::Below, rest),
                _ => None,
            }
        }
        _ => None,
    }
}

fn lies(a: Noun, relation: Relation, rest: &[&str]) -> Option<Question> {
    match noun(rest)? {
        (b, []) => Some(Question::Lies(a, relation, b)),
        _ => None,
    }
}

/// A noun phrase that is all there is, in the given number.
fn all(words: &[&str], plural: bool) -> Option<Noun> {
    match noun(words)? {
        (noun, []) if noun.plural == plural => Some(noun),
        _ => None,
    }
}

/// A noun phrase and what follows it.
fn noun<'a, 'b>(words: &'a [&'b str]) -> Option<(Noun, &'a [&'b str])> {
    let (first, rest) = words.split_first()?;
    if let Some((shape, plural)) = Shape::from_noun(first) {
        return Some((
            Noun {
                colour: None,
                shape,
                plural,
            },
            rest,
        ));
    }
    let colour = Colour::ALL.iter().copied().find(|c| c.word() == *first)?;
    let (second, rest) = rest.split_first()?;
    let (shape, plural) = Shape::from_noun(second)?;
    Some((
        Noun {
            colour: Some(colour),
            shape,
            plural,
        },
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wordings_round_trip() {
        let mut nouns = Vec::new();
        for &shape in Shape::ALL {
            for plural in [false, true] {
                for colour in [None, Some(Colour::Orange), Some(Colour::Red)] {
                    nouns.push(Noun {
                        colour,
                        shape,
                        plural,
                    });
                }
            }
        }
        let mut questions: Vec<Question> = Background::ALL
            .iter()
            .map(|&b| Question::BackgroundIs(b))
            .collect();
        for &noun in &nouns {
            questions.push(Question::Exists(noun));
            questions.extend(Colour::ALL.iter().map(|&c| Question::HasColour(noun, c)));
            questions.extend(Size::ALL.iter().map(|&s| Question::HasSize(noun, s)));
            if noun.plural {
                questions.extend((2..=4).map(|n| Question::Count(noun, n)));
            }
            for &other in nouns.iter().step_by(5) {
                questions.extend(
                    Relation::ALL
                        .iter()
                        .map(|&r| Question::Lies(noun, r, other)),
                );
            }
        }
        for question in questions {
            assert_eq!(question.to_string().parse(), Ok(question), "{question}");
        }
    }

    #[test]
    fn other_questions_are_refused() {
        for text in [
            "",
            "Is there a dog?",
            "Is there a circles?",
            "Are there circle?",
            "Are the circle red?",
            "Is the circle?",
            "Is the circle grey?",
            "Is the circle to the left of star?",
            "Is the circle above the star red?",
            "Is the background red?",
            "Are there five stars?",
            "What colour is the circle?",
        ] {
            assert!(text.parse::<Question>().is_err(), "{text}");
        }
    }
}
