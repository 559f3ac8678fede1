//! Parts of a batch on threads of their own.

use std::ops::Range;

use crate::TrainError;

/// Parts into which pretraining cuts a batch. Most operations on the CPU use one core, so that two halves side by side
/// take little more time than one. The number is fixed, not that of the machine's cores, because sums in another order
/// would change the last bits of a result.
pub(crate) const HALVES: usize = 2;

/// Runs `work` for every shard, each on a thread of its own if there are several; the results are in the order of the
/// shards.
///
/// # Errors
///
/// The error of the first shard that failed.
pub(crate) fn for_each_shard<T: Send>(
    shards: usize,
    work: impl Fn(usize) -> Result<T, TrainError> + Sync,
) -> Result<Vec<T>, TrainError> {
    if shards == 1 {
        return Ok(vec![work(0)?]);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..shards)
            .map(|shard| scope.spawn(move || work(shard)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// The part of `0..count` that a shard has; parts differ by one at the most.
pub(crate) fn part(count: usize, shards: usize, shard: usize) -> Range<usize> {
    count * shard / shards..count * (shard + 1) / shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (count, shards) in [(0, 2), (5, 2), (8, 3), (2, 3)] {
            let covered: Vec<usize> = (0..shards)
                .flat_map(|shard| part(count, shards, shard))
                .collect();
            assert_eq!(covered, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_is_given() {
        let result = for_each_shard(3, |shard| {
            if shard == 1 {
                Err(TrainError::NoData)
            } else {
                Ok(shard)
            }
        });
        assert!(matches!(result, Err(TrainError::NoData)));
        assert_eq!(for_each_shard(2, Ok).unwrap(), [0, 1]);
        assert_eq!(for_each_shard(1, Ok).unwrap(), [0]);
    }
}
