//! Printing that does not fail the program: `println!` panics when the reader has gone.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

/// Prints a line for people to standard error. If nobody can read it, so be it.
pub fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a result to standard output, with a line end.
///
/// # Errors
///
/// If standard output is closed or full.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
