//! What a run tells its observer.

use std::ops::ControlFlow;

use crate::Stage;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
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
