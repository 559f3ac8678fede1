//! Ctrl-C: the first asks the work to stop at its next step, the second ends the program.

use std::ops::ControlFlow;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::terminal::say;

/// What shells report for a program that was ended by Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C. For commands that ask [`flow`] or [`requested`] between their steps; without this call Ctrl-C
/// ends the program at once.
///
/// # Errors
///
/// If the system refuses, or this was called before.
pub fn install() -> anyhow::Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            process::exit(EXIT_CODE.into());
        }
        say("stopping at the next step; Ctrl-C again ends at once");
    };
    ctrlc::set_handler(handler).context("cannot take over Ctrl-C")
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// What an observer answers: go on, unless Ctrl-C was pressed.
pub fn flow() -> ControlFlow<()> {
    if requested() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}
