//! Work in parallel whose results are taken in order, with no more than a few for each thread in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Results for each thread that may wait for an earlier one. In adapters of SD 1.5 the largest layers take as long as five others.
const AHEAD: usize = 2;

/// Whose turn it is.
struct Turn<D, R, E> {
    next: usize,
    /// What has come before its turn.
    waiting: BTreeMap<usize, Result<R, E>>,
    done: D,
    failed: Option<E>,
    /// Set by an error or a panic: nobody waits any longer.
    stopped: bool,
}

/// Calls `work` for every item on the threads of the current pool, and `done` with its results one at a
/// time in the order of the items. A thread begins its next item only when no more than [`AHEAD`] results
/// for each thread have not been taken.
///
/// # Errors
/// The first one in the order of the items, whichever came first in time.
pub(super) fn in_order<T, R, E>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
    done: impl FnMut(R) -> Result<(), E> + Send,
) -> Result<(), E>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let turn = Mutex::new(Turn {
        next: 0,
        waiting: BTreeMap::new(),
        done,
        failed: None,
        stopped: false,
    });
    let changed = Condvar::new();
    let taken = AtomicUsize::new(0);
    let ahead = AHEAD * rayon::current_num_threads();
    let lock = || turn.lock().unwrap_or_else(PoisonError::into_inner);
    rayon::broadcast(|_| {
        // Items are taken in order, so whoever has the lowest one never waits.
        loop {
            let index = taken.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return;
            };
            let on_panic = OnDrop(|| {
                lock().stopped = true;
                changed.notify_all();
            });
            let result = work(item);
            std::mem::forget(on_panic);
            let mut turn = lock();
            turn.waiting.insert(index, result);
            while !turn.stopped
                && let next = turn.next
                && let Some(result) = turn.waiting.remove(&next)
            {
                if let Err(error) = result.and_then(|result| (turn.done)(result)) {
                    turn.failed = Some(error);
                    turn.stopped = true;
                }
                turn.next += 1;
            }
            changed.notify_all();
            while index >= turn.next + ahead && !turn.stopped {
                turn = changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
            if turn.stopped {
                return;
            }
        }
    });
    let turn = turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    turn.failed.map_or(Ok(()), Err)
}

/// Calls something when it goes out of scope, a panic included.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread::sleep, time::Duration};

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        builder.build().unwrap()
    }

    #[test]
    fn results_come_in_order_however_long_they_take() {
        let items: Vec<u64> = (0..40).collect();
        for threads in [1, 2, 5] {
            let mut seen = Vec::new();
            let work = |&item: &u64| {
                sleep(Duration::from_micros(item * 7919 % 11 * 100));
                Ok::<_, ()>(item)
            };
            let done = |item| {
                seen.push(item);
                Ok(())
            };
            pool(threads)
                .install(|| in_order(&items, work, done))
                .unwrap();
            assert_eq!(seen, items);
        }
        assert_eq!(
            in_order(&[(); 0], |()| Ok::<_, ()>(()), |()| Ok(())),
            Ok(())
        );
    }

    #[test]
    fn while_one_takes_long_the_others_go_on_but_not_far() {
        let items: Vec<usize> = (0..20).collect();
        let begun = AtomicUsize::new(0);
        let work = |&item: &usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if item == 0 {
                let most = 1 + 2 * AHEAD;
                while begun.load(Ordering::SeqCst) < most {
                    sleep(Duration::from_millis(1));
                }
                sleep(Duration::from_millis(20));
                assert_eq!(begun.load(Ordering::SeqCst), most);
            }
            Ok::<_, ()>(item)
        };
        let mut seen = Vec::new();
        let done = |item| {
            seen.push(item);
            Ok(())
        };
        pool(2).install(|| in_order(&items, work, done)).unwrap();
        assert_eq!(seen, items);
    }

    #[test]
    fn the_first_error_in_order_is_the_one_that_is_reported() {
        let items: Vec<usize> = (0..20).collect();
        let mut seen = Vec::new();
        let work = |&item: &usize| match item {
            // The later one is there first.
            7 => {
                sleep(Duration::from_millis(20));
                Err(7)
            }
            8.. => Err(8),
            _ => Ok(item),
        };
        let done = |item| {
            seen.push(item);
            Ok(())
        };
        let error = pool(3).install(|| in_order(&items, work, done));
        assert_eq!((error, seen), (Err(7), (0..7).collect()));
        let error = in_order(
            &items,
            |&item| Ok(item),
            |item| if item == 4 { Err(4) } else { Ok(()) },
        );
        assert_eq!(error, Err(4));
    }

    #[test]
    fn a_panic_ends_the_others_too() {
        let items: Vec<usize> = (0..20).collect();
        let panics = || {
            pool(3).install(|| {
                let work = |&item: &usize| {
                    assert!(item != 3, "as planned");
                    Ok::<_, ()>(item)
                };
                in_order(&items, work, |_| Ok(()))
            })
        };
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
