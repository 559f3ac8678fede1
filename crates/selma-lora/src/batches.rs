//! Work in parallel on what comes from a source that runs on one thread.

use rayon::prelude::*;

/// Takes as many items as there are threads, works on these in parallel, hands the results on in order, and so on: no more
/// than one item for each thread is in memory.
///
/// # Errors
/// The first of the source or of `done`. What came before it has been handed on, and nothing after it is asked for.
pub(crate) fn in_batches<T: Send, R: Send, E>(
    items: impl IntoIterator<Item = Result<T, E>>,
    work: impl Fn(T) -> R + Sync,
    mut done: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let mut items = items.into_iter();
    let size = rayon::current_num_threads();
    loop {
        let mut end = None;
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size && end.is_none() {
            match items.next() {
                Some(Ok(item)) => batch.push(item),
                Some(Err(error)) => end = Some(Err(error)),
                None => end = Some(Ok(())),
            }
        }
        let results: Vec<R> = batch.into_par_iter().map(&work).collect();
        results.into_iter().try_for_each(&mut done)?;
        if let Some(end) = end {
            return end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn results_come_in_order_and_no_more_is_taken_than_there_are_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        let seen = pool.unwrap().install(|| {
            let (taken, mut seen) = (Cell::new(0), Vec::new());
            let items = (0..10).map(|item| {
                taken.set(taken.get() + 1);
                Ok::<_, ()>(item)
            });
            let done = |item| {
                assert!(taken.get() <= seen.len() + 3);
                seen.push(item);
                Ok(())
            };
            in_batches(items, |item| item * 2, done).unwrap();
            seen
        });
        assert_eq!(seen, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
    }

    #[test]
    fn errors_come_after_what_was_before_them() {
        let mut seen = Vec::new();
        let items = [Ok(1), Ok(2), Err("source"), Ok(3)];
        let done = |item| {
            seen.push(item);
            Ok(())
        };
        assert_eq!(in_batches(items, |item| item, done), Err("source"));
        assert_eq!(seen, [1, 2]);
        let failing = |item| if item == 1 { Err("done") } else { Ok(()) };
        assert_eq!(in_batches(items, |item| item, failing), Err("done"));
    }
}
