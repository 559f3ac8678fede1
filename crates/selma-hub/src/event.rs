//! What a download tells its observer.

use std::ops::ControlFlow;
use std::time::Duration;

/// Something that happened. Later versions may tell more.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// It is known what is needed.
    Chosen {
        /// The commit that the revision stands for.
        commit: &'a str,
        /// Files that the model consists of.
        files: usize,
        /// Their size together, in bytes.
        bytes: u64,
        /// How much of that is not in the cache.
        missing: u64,
    },
    /// Bytes have come.
    Progress {
        /// The file's path in the repository.
        file: &'a str,
        /// Bytes that are in the cache, of all files together.
        done: u64,
        /// Bytes in all.
        total: u64,
        /// Bytes that this call has downloaded, for a rate.
        received: u64,
    },
    /// A request has failed and is sent again after a pause.
    Retry {
        /// What is asked for.
        what: &'a str,
        /// Why it failed.
        reason: &'a str,
        /// The pause.
        wait: Duration,
    },
    /// Another process downloads the same file; it is waited for.
    Shared {
        /// The file's path in the repository.
        file: &'a str,
    },
    /// Nothing happens for the moment: in a pause, or while another process downloads the same file. Told again and again, so that
    /// the observer can stop.
    Waiting {
        /// What is waited for.
        what: &'a str,
    },
    /// The server cannot be reached, and the cache has the model from an earlier time.
    Unreachable {
        /// What went wrong.
        reason: &'a str,
    },
}

/// Receives events and may stop the work by [`ControlFlow::Break`]; the next time it goes on where it was.
pub type HubObserver<'a> = dyn FnMut(HubEvent<'_>) -> ControlFlow<()> + 'a;
