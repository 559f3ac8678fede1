//! What a run tells its observer.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::Stage;

/// Something that happened. Later versions may tell more.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RunEvent<'a> {
    /// A stage begins.
    Stage(Stage),
    /// A piece of work goes on.
    Progress {
        /// What is worked on, for example the name of a skill or model.
        task: &'a str,
        /// Units done, those of an earlier run included.
        done: usize,
        /// Units in all.
        total: usize,
        /// What the units are: `prompts`, `images`, `steps`, `pictures` (that are asked about).
        unit: &'static str,
        /// A figure to show, for example a loss.
        note: Option<(&'static str, f64)>,
    },
    /// A prompt has more tokens than the text encoder takes; its end is not drawn. Told once for each prompt of a data set.
    Truncated {
        /// The prompt.
        text: &'a str,
        /// The end that was cut off.
        cut: &'a str,
        /// Tokens in it.
        dropped: usize,
    },
    /// The last line of a journal was torn, by a kill or a crash, and was cut off; what it said is done again.
    Repaired {
        /// The journal.
        path: &'a Path,
        /// How much was cut off.
        bytes: u64,
    },
    /// The data of a training is encoded. Told where there is a cache.
    Encoded {
        /// What is trained.
        task: &'a str,
        /// Pictures and texts that had to be encoded.
        encoded: usize,
        /// Pictures and texts that were found in the cache.
        found: usize,
    },
    /// A file of the cache was damaged, and was made anew.
    Remade {
        /// The file.
        path: &'a Path,
    },
    /// All steps of a training are done.
    Waited {
        /// What was trained.
        task: &'a str,
        /// How long it waited for data,
        waited: Duration,
        /// of the time of all steps, those of an earlier run not included.
        whole: Duration,
    },
    /// A piece of work is finished, now or in an earlier run.
    Finished {
        /// What was worked on.
        task: &'a str,
        /// Whether it was found finished.
        before: bool,
    },
}

/// Receives events and may stop the run by [`ControlFlow::Break`]; the same command continues it.
pub type RunObserver<'a> = dyn FnMut(RunEvent<'_>) -> ControlFlow<()> + 'a;
