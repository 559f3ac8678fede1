//! Several tasks at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
};

/// Does `work` on all tasks, `jobs` at a time, each in a thread of its own, and hands the results on in this thread, in
/// the order in which they are ready. Tasks are drawn in this thread when there is room for them.
///
/// After the first failure, of a task, a result or `take`, nothing new is begun; what is under way is still taken.
pub(crate) fn in_parallel<T: Send, R: Send, E>(
    jobs: usize,
    mut tasks: impl Iterator<Item = Result<T, E>>,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let (sender, results) = mpsc::channel();
    let work = &work;
    thread::scope(|scope| {
        let (mut outcome, mut running) = (Ok(()), 0);
        loop {
            while outcome.is_ok() && running < jobs.max(1) {
                match tasks.next() {
                    None => break,
                    Some(Err(error)) => outcome = Err(error),
                    Some(Ok(task)) => {
                        let sender = sender.clone();
                        scope.spawn(move || {
                            // A panic is handed on; else nobody would know that no result comes.
                            let result = catch_unwind(AssertUnwindSafe(|| work(task)));
                            drop(sender.send(result));
                        });
                        running += 1;
                    }
                }
            }
            if running == 0 {
                return outcome;
            }
            match results.recv() {
                Ok(Ok(result)) => {
                    running -= 1;
                    outcome = outcome.and(take(result));
                }
                Ok(Err(panic)) => resume_unwind(panic),
                // This thread has a sender, too.
                Err(mpsc::RecvError) => return outcome,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn all_is_done_and_no_more_at_once_than_allowed() {
        for jobs in [0, 1, 3, 100] {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut sum = 0;
            let work = |n: u64| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                2 * n
            };
            let done: Result<(), String> = in_parallel(jobs, (1..=40).map(Ok), work, |n| {
                sum += n;
                Ok(())
            });
            assert_eq!((done, sum), (Ok(()), 1640));
            assert!(most.into_inner() <= jobs.max(1));
        }
    }

    #[test]
    fn after_a_failure_nothing_is_begun_and_what_is_under_way_is_taken() {
        let (begun, mut taken) = (AtomicUsize::new(0), 0);
        let work = |n: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            n
        };
        let done = in_parallel(4, (0..100).map(Ok), work, |_| {
            taken += 1;
            if taken == 1 { Err("no more") } else { Ok(()) }
        });
        assert_eq!(done, Err("no more"));
        assert_eq!((begun.into_inner(), taken), (4, 4));
        let tasks = [Ok(1), Err("no picture"), Ok(2)].into_iter();
        let mut taken = Vec::new();
        let done = in_parallel(
            1,
            tasks,
            |n| n,
            |n| {
                taken.push(n);
                Ok(())
            },
        );
        assert_eq!((done, taken), (Err("no picture"), vec![1]));
    }

    #[test]
    #[should_panic(expected = "task 3")]
    fn a_panic_is_handed_on() {
        let work = |n: u32| assert_ne!(n, 3, "task 3");
        let _: Result<(), ()> = in_parallel(2, (0..9).map(Ok), work, |()| Ok(()));
    }
}
