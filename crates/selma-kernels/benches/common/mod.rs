//! How the benchmarks take the time.

use std::time::{Duration, Instant};

/// The median of repeated runs over about a second (three at least), in milliseconds, not counting the preparation of
/// each input.
pub(crate) fn median<I>(prepare: impl Fn() -> I, run: impl Fn(I)) -> f64 {
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < Duration::from_secs(1) || times.len() < 3 {
        let input = prepare();
        let start = Instant::now();
        run(input);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e3
}
