//! Which seed each picture has.

use anyhow::{Context, ensure};

/// More seeds than that in one range are a mistake.
const LONGEST: u64 = 100_000;

/// A seed, or a range of them with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedRange {
    first: u64,
    last: u64,
}

impl SeedRange {
    /// Reads `S` or `FIRST-LAST`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.parse::<u64>();
            number.map_err(|_| format!("expected a number or FIRST-LAST, found {text:?}"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        match last.checked_sub(first) {
            None => Err(format!("{first} is larger than {last}")),
            Some(more) if more >= LONGEST => Err(format!("more than {LONGEST} seeds")),
            Some(_) => Ok(Self { first, last }),
        }
    }
}

/// All seeds of some ranges.
pub fn listed(ranges: &[SeedRange]) -> Vec<u64> {
    let seeds = ranges.iter().flat_map(|range| range.first..=range.last);
    seeds.collect()
}

/// The seeds of the pictures, prompt by prompt.
///
/// One seed is that of the first picture, and the others count on from it. Several are one for each picture, or one for each picture of a prompt and the same for
/// every prompt.
pub fn spread(seeds: Vec<u64>, prompts: usize, per_prompt: usize) -> anyhow::Result<Vec<u64>> {
    let total = prompts * per_prompt;
    if let [first] = seeds.as_slice() {
        let counted = (0..total as u64).map(|index| first.checked_add(index));
        return counted
            .collect::<Option<_>>()
            .context("the seed is too large for so many pictures");
    }
    if seeds.len() == total {
        return Ok(seeds);
    }
    ensure!(
        seeds.len() == per_prompt,
        "{} seeds for {total} pictures; expected 1, {total}, or {per_prompt} for the pictures of each prompt",
        seeds.len()
    );
    Ok(seeds.repeat(prompts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(text: &str, prompts: usize, per_prompt: usize) -> anyhow::Result<Vec<u64>> {
        let ranges: Vec<SeedRange> = text
            .split(',')
            .map(|part| SeedRange::parse(part).unwrap())
            .collect();
        spread(listed(&ranges), prompts, per_prompt)
    }

    #[test]
    fn one_seed_counts_on_and_several_are_taken_as_they_are() {
        for (text, prompts, per_prompt, expected) in [
            ("7", 1, 1, vec![7]),
            ("7", 2, 2, vec![7, 8, 9, 10]),
            ("3-5", 1, 3, vec![3, 4, 5]),
            ("9,1", 2, 1, vec![9, 1]),
            ("9,1-2", 2, 3, vec![9, 1, 2, 9, 1, 2]),
            ("1-4", 2, 2, vec![1, 2, 3, 4]),
        ] {
            let found = seeds(text, prompts, per_prompt).unwrap();
            assert_eq!(found, expected, "{text}");
        }
        let error = seeds("1-3", 2, 2).unwrap_err().to_string();
        assert!(error.contains("3 seeds for 4 pictures"), "{error}");
        assert!(seeds("18446744073709551615", 2, 1).is_err());
    }

    #[test]
    fn what_is_no_range_is_explained() {
        for (text, part) in [
            ("a", "number"),
            ("-1", "number"),
            ("5-3", "larger"),
            ("0-100000", "more than"),
            ("", "number"),
        ] {
            let error = SeedRange::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
