//! The order of training: which samples a batch has.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use selma_seed::derive_seed;

use crate::{DatasetError, Size};

/// Turns after which the shares of data sets are those of their weights. Up to ten equal weights divide it.
const BLOCK: usize = 2520;

/// Samples that are drawn from together.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedSet {
    /// The size in which each sample is shown ([`Geometry::size`](crate::Geometry::size)).
    pub sizes: Vec<Size>,
    /// Its share of the samples that are shown, beside the other sets' weights. Of no account where there is one set.
    pub weight: f64,
}

/// The order in which samples are shown, as a function of the number of a batch: a training that is resumed goes on as if it had never been stopped.
///
/// Samples of all sets are numbered through, in the order of the sets.
///
/// - Where all are shown in one size, an epoch is a permutation of the set, and batches go on over its end.
/// - Where there are several sizes, a batch has one of them. An epoch has the permuted samples of each size in batches, the last of which is filled up from the first
///   samples of the permutation, and all these batches in random order.
/// - Several sets take turns by their weights: for each sample where there is one size, for each batch where there are several. In 2520 turns, a set has as many as its
///   weight says, rounded by largest remainders, in random order. Each set has epochs of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    seed: u64,
    batch_size: usize,
    sets: Vec<Set>,
}

#[derive(Debug, Clone, PartialEq)]
struct Set {
    /// Number of its first sample.
    first: usize,
    len: usize,
    /// Turns in a block.
    turns: usize,
    /// Numbers of the samples of each size, ascending.
    buckets: BTreeMap<Size, Vec<usize>>,
}

impl Plan {
    /// Plans batches of `batch_size` samples.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Setting`] if there is no set, one is empty, or has a weight that is not positive or too small for a turn in a block.
    pub fn new(seed: u64, batch_size: usize, sets: &[PlannedSet]) -> Result<Self, DatasetError> {
        let wrong = |field: &str, expected: String, found: &str| DatasetError::Setting {
            field: field.to_owned(),
            expected,
            found: found.to_owned(),
        };
        if batch_size == 0 {
            return Err(wrong("batch_size", "at least 1".to_owned(), "0"));
        }
        if sets.is_empty() {
            return Err(wrong("sets", "at least one".to_owned(), "none"));
        }
        let mut first = 0;
        let mut planned = Vec::with_capacity(sets.len());
        for (number, (set, turns)) in sets.iter().zip(turns(sets)?).enumerate() {
            if set.sizes.is_empty() {
                let expected = format!("samples in data set {number}");
                return Err(wrong("sizes", expected, "none"));
            }
            let mut buckets = BTreeMap::<Size, Vec<usize>>::new();
            for (sample, size) in (first..).zip(&set.sizes) {
                buckets.entry(*size).or_default().push(sample);
            }
            let len = set.sizes.len();
            planned.push(Set {
                first,
                len,
                turns,
                buckets,
            });
            first += len;
        }
        Ok(Self {
            seed,
            batch_size,
            sets: planned,
        })
    }

    /// How many samples are shown in each size, by size.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<Size, usize> {
        let mut counts = BTreeMap::new();
        for (size, samples) in self.sets.iter().flat_map(|set| &set.buckets) {
            *counts.entry(*size).or_default() += samples.len();
        }
        counts
    }

    /// The samples of a batch, counted from 0. It takes time in proportion to the samples.
    #[must_use]
    pub fn batch(&self, number: usize) -> Vec<usize> {
        let mut block = Shuffled::default();
        if self.sizes().len() > 1 {
            let (set, turn) = self.turn(number, &mut block);
            return self.batch_of_one_size(set, turn).unwrap_or_default();
        }
        let mut orders: Vec<Shuffled> = Vec::new();
        orders.resize_with(self.sets.len(), Shuffled::default);
        let positions = number * self.batch_size..(number + 1) * self.batch_size;
        let sample = |position| {
            let (number, turn) = self.turn(position, &mut block);
            let set = self.sets.get(number)?;
            let epoch = turn / set.len;
            let order = orders.get_mut(number)?;
            let permutation = order.of(
                epoch,
                || self.seed_of("epoch", number, &[epoch]),
                || 0..set.len,
            );
            permutation
                .get(turn % set.len)
                .map(|sample| set.first + sample)
        };
        positions.filter_map(sample).collect()
    }

    /// Whose turn it is, and how often it was before.
    fn turn(&self, number: usize, block: &mut Shuffled) -> (usize, usize) {
        if self.sets.len() == 1 {
            return (0, number);
        }
        let blocks = number / BLOCK;
        let seed = || derive_seed(self.seed, "turns", &[blocks as u64]);
        let sets = || self.sets.iter().enumerate();
        let slots = || sets().flat_map(|(set, planned)| std::iter::repeat_n(set, planned.turns));
        let turns = block.of(blocks, seed, slots);
        let before = number % BLOCK;
        let set = turns.get(before).copied().unwrap_or_default();
        let had = turns
            .iter()
            .take(before)
            .filter(|turn| **turn == set)
            .count();
        let share = self.sets.get(set).map_or(0, |planned| planned.turns);
        (set, blocks * share + had)
    }

    fn batch_of_one_size(&self, number: usize, turn: usize) -> Option<Vec<usize>> {
        let set = self.sets.get(number)?;
        let batches = |samples: &Vec<usize>| samples.len().div_ceil(self.batch_size);
        let in_epoch: usize = set.buckets.values().map(batches).sum();
        let epoch = turn / in_epoch;
        let mut order: Vec<usize> = (0..in_epoch).collect();
        shuffle(&mut order, self.seed_of("batches", number, &[epoch]));
        let mut place = *order.get(turn % in_epoch)?;
        for (bucket, samples) in set.buckets.values().enumerate() {
            if place < batches(samples) {
                let mut samples = samples.clone();
                shuffle(
                    &mut samples,
                    self.seed_of("bucket", number, &[epoch, bucket]),
                );
                let from = samples.iter().cycle().skip(place * self.batch_size);
                return Some(from.take(self.batch_size).copied().collect());
            }
            place -= batches(samples);
        }
        None
    }

    /// A seed for a set. One that is alone has that of a training without weights.
    fn seed_of(&self, label: &str, set: usize, indices: &[usize]) -> u64 {
        let set = (self.sets.len() > 1).then_some(set);
        let indices: Vec<u64> = indices
            .iter()
            .copied()
            .chain(set)
            .map(|index| index as u64)
            .collect();
        derive_seed(self.seed, label, &indices)
    }
}

/// Turns of each set in a block: of what is left when shares are rounded down, those with the largest remainders get one more, the first of equal ones first.
fn turns(sets: &[PlannedSet]) -> Result<Vec<usize>, DatasetError> {
    if sets.len() == 1 {
        return Ok(vec![BLOCK]);
    }
    let wrong = |set: usize, expected: &str, weight: f64| DatasetError::Setting {
        field: "weight".to_owned(),
        expected: format!("{expected} for data set {set}"),
        found: weight.to_string(),
    };
    for (set, planned) in sets.iter().enumerate() {
        if !(planned.weight.is_finite() && planned.weight > 0.0) {
            return Err(wrong(set, "a positive number", planned.weight));
        }
    }
    // In parts of the largest, since the sum of large weights is not finite.
    let largest = sets.iter().map(|set| set.weight).fold(0.0, f64::max);
    let parts: Vec<f64> = sets.iter().map(|set| set.weight / largest).collect();
    let sum: f64 = parts.iter().sum();
    let shares: Vec<f64> = parts.iter().map(|part| part / sum * BLOCK as f64).collect();
    let mut turns: Vec<usize> = shares.iter().map(|share| *share as usize).collect();
    let left = BLOCK.saturating_sub(turns.iter().sum());
    let mut by_remainder: Vec<(f64, &mut usize)> = shares
        .iter()
        .map(|share| share.fract())
        .zip(&mut turns)
        .collect();
    by_remainder.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (_, turns) in by_remainder.into_iter().take(left) {
        *turns += 1;
    }
    for ((set, planned), turns) in sets.iter().enumerate().zip(&turns) {
        if *turns == 0 {
            let expected = format!("at least 1/{BLOCK} of the sum of weights");
            return Err(wrong(set, &expected, planned.weight));
        }
    }
    Ok(turns)
}

fn shuffle(items: &mut [usize], seed: u64) {
    items.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
}

/// The shuffled list that was asked for last: neighbours mostly ask for the same.
#[derive(Default)]
struct Shuffled {
    number: Option<usize>,
    items: Vec<usize>,
}

impl Shuffled {
    fn of<I: Iterator<Item = usize>>(
        &mut self,
        number: usize,
        seed: impl Fn() -> u64,
        items: impl Fn() -> I,
    ) -> &[usize] {
        if self.number != Some(number) {
            self.items = items().collect();
            shuffle(&mut self.items, seed());
            self.number = Some(number);
        }
        &self.items
    }
}

#[cfg(test)]
mod tests;
