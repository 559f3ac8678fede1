//! From free words to one of several choices.

use serde::{Deserialize, Serialize};

/// How the choice of an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMethod {
    /// It came with the answer, from a file of the reference program.
    Given,
    /// The answer is a choice.
    Exact,
    /// It is one but for case, white space and punctuation at the ends: "Yes."
    Normalised,
    /// It has the words of one choice and of no other: "a pale green boat".
    Contained,
    /// The choice with the smallest edit distance relative to the longer of the two texts; of equals the first.
    EditDistance,
    /// The choice with the nearest sentence embedding ([`TifaAnswers::take_nearest`](super::TifaAnswers::take_nearest)).
    Embedding,
}

/// The choice that an answer means, and how it was found; `None` for an empty answer.
///
/// The reference program tries only [`Exact`](ChoiceMethod::Exact), and then the nearest sentence embedding of
/// `all-mpnet-base-v2`, as [`TifaAnswers::take_nearest`](super::TifaAnswers::take_nearest) does it. In the place of the latter this function, which needs no
/// model, tries [`Normalised`](ChoiceMethod::Normalised), [`Contained`](ChoiceMethod::Contained) and [`EditDistance`](ChoiceMethod::EditDistance), in this order.
///
/// ```
/// use selma_eval::tifa::{ChoiceMethod, choose};
///
/// let choices = ["black", "green", "yellow", "brown"].map(str::to_owned);
/// assert_eq!(choose("green", &choices), Some((1, ChoiceMethod::Exact)));
/// assert_eq!(choose("pale green", &choices), Some((1, ChoiceMethod::Contained)));
/// assert_eq!(choose("yellowish", &choices), Some((2, ChoiceMethod::EditDistance)));
/// ```
pub fn choose(answer: &str, choices: &[String]) -> Option<(usize, ChoiceMethod)> {
    let normal = normalised(answer);
    if normal.is_empty() {
        return None;
    }
    if let Some(index) = choices.iter().position(|choice| choice == answer) {
        return Some((index, ChoiceMethod::Exact));
    }
    let choices: Vec<String> = choices.iter().map(|choice| normalised(choice)).collect();
    if let Some(index) = choices.iter().position(|choice| *choice == normal) {
        return Some((index, ChoiceMethod::Normalised));
    }
    let found = |(index, choice): (usize, &String)| contains(&normal, choice).then_some(index);
    let mut contained = choices.iter().enumerate().filter_map(found);
    if let (Some(index), None) = (contained.next(), contained.next()) {
        return Some((index, ChoiceMethod::Contained));
    }
    let alike = choices
        .iter()
        .map(|choice| strsim::normalized_levenshtein(&normal, choice));
    let (index, _) = alike.enumerate().reduce(|best, next| {
        // Of equals the first.
        if next.1 > best.1 { next } else { best }
    })?;
    Some((index, ChoiceMethod::EditDistance))
}

/// Lower case, without white space and punctuation at the ends, one space between words.
fn normalised(text: &str) -> String {
    let text = text.to_lowercase();
    let text = text.trim_matches(|c: char| !c.is_alphanumeric());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the words of a choice follow one another in the answer.
fn contains(answer: &str, choice: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric());
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (answer, choice) = (words(answer), words(choice));
    !choice.is_empty() && answer.windows(choice.len()).any(|part| part == choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str, choices: &[&str]) -> Option<(usize, ChoiceMethod)> {
        let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
        choose(answer, &choices)
    }

    #[test]
    fn each_method_where_those_before_it_fail() {
        use ChoiceMethod::{Contained, EditDistance, Exact, Normalised};
        let people: &[&str] = &["surfer", "swimmer", "diver", "wind surfer"];
        for (answer, choices, expected) in [
            ("surfer", people, Some((0, Exact))),
            (" Surfer.\n", people, Some((0, Normalised))),
            ("**Surfer**", people, Some((0, Normalised))),
            ("It is a diver, I think.", people, Some((2, Contained))),
            // Both are in it; the longer is nearer.
            ("a wind surfer", people, Some((3, EditDistance))),
            ("swimer", people, Some((1, EditDistance))),
            ("no, it isn't", &["yes", "no"], Some((1, Contained))),
            ("nothing", &["yes", "no"], Some((1, EditDistance))),
            ("xyz", &["ab", "cd"], Some((0, EditDistance))),
            ("3", &["1", "2", "3"], Some((2, Exact))),
            ("There are 13.", &["1", "3", "13"], Some((2, Contained))),
            ("ÄPFEL", &["birnen", "äpfel"], Some((1, Normalised))),
            ("", &["yes", "no"], None),
            (" .!", &["yes", "no"], None),
        ] {
            assert_eq!(of(answer, choices), expected, "{answer:?}");
        }
    }
}
