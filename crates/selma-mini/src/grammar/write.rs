//! Writing the numbered list, with the faults of a real model.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::brief::Brief;
use crate::caption::{caption, parse_caption};
use crate::scene::pick;
use crate::{Colour, Partition, Style, sample_spec};

/// Chance that a line repeats an example or an earlier line word for word.
const REPEAT: f64 = 0.08;
/// Chance that a line changes one colour of an example or an earlier line.
const VARY: f64 = 0.1;
/// Chance that an answer starts over at 1, that it leaves out a number, and that it has a number twice.
const RESTART: f64 = 0.06;
const SKIP: f64 = 0.06;
const TWICE: f64 = 0.06;

const OPENINGS: &[&str] = &[
    "Sure! Here are some more image descriptions:",
    "Of course. Here are more diverse image descriptions that follow the rules:",
    "Here is the list you asked for:",
    "Certainly! I have tried to make them different from each other:",
];
const CLOSINGS: &[&str] = &[
    "I hope these help! Let me know if you would like more.",
    "Note: All descriptions follow the rules above.",
    "Feel free to ask for other styles.",
];

/// The whole answer.
pub(super) fn answer(brief: &Brief, rng: &mut ChaCha8Rng) -> String {
    let mut parts = Vec::new();
    if rng.random_bool(0.3) {
        parts.push(pick(OPENINGS, "", rng).to_owned());
    }
    let mut known = brief.examples.clone();
    let lines: Vec<String> = numbers(brief, rng)
        .into_iter()
        .map(|number| {
            let text = line(brief.style, &known, rng);
            known.push(text.clone());
            (number, text)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(numbered(rng))
        .collect();
    parts.push(lines.join(if rng.random_bool(0.3) { "\n\n" } else { "\n" }));
    if rng.random_bool(0.2) {
        parts.push(pick(CLOSINGS, "", rng).to_owned());
    }
    parts.join("\n\n")
}

/// The lines' numbers, mostly right.
fn numbers(brief: &Brief, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let first = if rng.random_bool(RESTART) {
        1
    } else {
        brief.first
    };
    let skipped = rng
        .random_bool(SKIP)
        .then(|| rng.random_range(0..brief.count));
    let twice = rng
        .random_bool(TWICE)
        .then(|| rng.random_range(0..brief.count));
    (0..brief.count)
        .map(|i| {
            let more = usize::from(skipped.is_some_and(|at| i >= at));
            let less = usize::from(twice.is_some_and(|at| i > at));
            first.saturating_add(i + more - less.min(i))
        })
        .collect()
}

/// How this answer writes its items.
fn numbered(rng: &mut ChaCha8Rng) -> impl Fn((usize, String)) -> String + use<> {
    let form = rng.random_range(0..20_u8);
    move |(number, text)| match form {
        0 | 1 => format!("{number}) {text}"),
        2 => format!("**{number}.** {text}"),
        3 => format!("{number}. \"{text}\""),
        _ => format!("{number}. {text}"),
    }
}

/// One caption: a repetition, a variation, or something new.
fn line(style: Style, known: &[String], rng: &mut ChaCha8Rng) -> String {
    let draw: f64 = rng.random();
    if draw < REPEAT + VARY && !known.is_empty() {
        let model = known
            .get(rng.random_range(0..known.len()))
            .cloned()
            .unwrap_or_default();
        let text = if draw < REPEAT {
            model
        } else {
            varied(&model, rng)
        };
        let said = parse_caption(&text);
        if said.is_some_and(|s| {
            s.partition() == Partition::Train && s.is_unusual() == (style == Style::Whoops)
        }) {
            return text;
        }
    }
    loop {
        let spec = sample_spec(style, rng);
        if spec.partition() == Partition::Train {
            return caption(&spec, style, rng);
        }
    }
}

/// The same text with its first colour changed.
fn varied(text: &str, rng: &mut ChaCha8Rng) -> String {
    let colour = |word: &&str| {
        Colour::ALL
            .iter()
            .any(|c| c.word().eq_ignore_ascii_case(word))
    };
    match text.split_whitespace().find(colour) {
        Some(word) => text.replacen(word, pick(Colour::ALL, Colour::Red, rng).word(), 1),
        None => text.to_owned(),
    }
}
