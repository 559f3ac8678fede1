//! Work that is done on several threads and taken in its order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::available_parallelism;
use std::time::Duration;

use rayon::ThreadPoolBuilder;

use crate::SelmaError;

/// How often the watcher is asked while nothing is finished.
const WATCH: Duration = Duration::from_millis(100);

/// Does `work` for every job on `workers` threads, and hands the results to `take` in the order of the jobs.
///
/// Each worker has an equal part of the cores for what it computes in parallel. The small operations of a denoiser keep
/// one core busy and two hardly busier, so that two batches side by side take little more time than one. Work that is
/// still under way when something fails or the watcher breaks learns of it from the [`AtomicBool`] and should end.
///
/// # Errors
///
/// The first error of `work` or `take`, and [`SelmaError::Cancelled`] if `watch`, which is asked every tenth of a second,
/// breaks.
pub(crate) fn side_by_side<J: Sync, T: Send>(
    jobs: &[J],
    workers: usize,
    work: impl Fn(&J, &AtomicBool) -> Result<T, SelmaError> + Sync,
    mut take: impl FnMut(&J, T) -> Result<(), SelmaError>,
    mut watch: impl FnMut() -> ControlFlow<()>,
) -> Result<(), SelmaError> {
    let cores = available_parallelism().map_or(1, usize::from);
    let workers = workers.clamp(1, jobs.len().max(1));
    let pools = (0..workers)
        .map(|_| {
            ThreadPoolBuilder::new()
                .num_threads((cores / workers).max(1))
                .build()
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(SelmaError::Threads)?;
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for pool in &pools {
            let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let result = pool.install(|| work(job, stop));
                    if sender.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut taken = 0;
        let mut receive = || -> Result<(), SelmaError> {
            loop {
                match receiver.recv_timeout(WATCH) {
                    Ok((index, result)) => {
                        early.insert(index, result?);
                        while let (Some(job), Some(result)) =
                            (jobs.get(taken), early.remove(&taken))
                        {
                            take(job, result)?;
                            taken += 1;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if watch().is_break() {
                    return Err(SelmaError::Cancelled);
                }
            }
        };
        let outcome = receive();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_on() -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let jobs: Vec<u64> = (0..20).collect();
        let mut taken = Vec::new();
        let work = |&job: &u64, _: &AtomicBool| {
            // Early jobs take longest.
            std::thread::sleep(Duration::from_millis(20 - job));
            Ok(job * job)
        };
        let take = |&job: &u64, square| {
            taken.push((job, square));
            Ok(())
        };
        side_by_side(&jobs, 3, work, take, go_on).unwrap();
        let expected: Vec<_> = jobs.iter().map(|&job| (job, job * job)).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn what_comes_before_a_failure_is_taken_and_nothing_after() {
        let jobs: Vec<usize> = (0..100).collect();
        let mut taken = Vec::new();
        let work = |&job: &usize, _: &AtomicBool| match job {
            5 => Err(SelmaError::Cancelled),
            _ => Ok(()),
        };
        let take = |&job: &usize, ()| {
            taken.push(job);
            Ok(())
        };
        let failed = side_by_side(&jobs, 1, work, take, go_on);
        assert!(matches!(failed, Err(SelmaError::Cancelled)));
        assert_eq!(taken, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn work_under_way_ends_when_the_watcher_breaks() {
        let work = |_: &(), stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err::<(), _>(SelmaError::Cancelled)
        };
        let stopped = side_by_side(
            &[(), ()],
            2,
            work,
            |(), ()| Ok(()),
            || ControlFlow::Break(()),
        );
        assert!(matches!(stopped, Err(SelmaError::Cancelled)));
    }

    #[test]
    fn no_job_is_no_work() {
        let nothing: [u8; 0] = [];
        side_by_side(&nothing, 2, |_, _| Ok(()), |_, ()| Ok(()), go_on).unwrap();
    }
}
