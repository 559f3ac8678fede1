//! `selma`: writes prompts, draws pictures, trains and merges adapters, and measures what they gain.
//!
//! A sub-command only turns flags into the settings of a library; whatever it does can be done by the libraries alone.

#![allow(
    unreachable_pub,
    reason = "nothing reaches into a program; `pub` marks what its other modules use"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "each sub-command is given its flags for good, whether it takes them apart or not"
)]

mod commands;
mod crash;
mod errors;
#[cfg(feature = "hub")]
mod hub;
mod interrupt;
mod memory;
mod models;
mod output;
mod progress;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

/// Big tensors otherwise cost page faults: a linear layer took 16 ms with the system's allocator and 9.6 with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// SELMA: teach a text-to-image model new skills with pictures that it drew itself.
///
/// A language model writes prompts for several skills, the image model draws them, one LoRA expert is trained on each
/// skill, and the experts are merged into one adapter (arXiv 2403.06952).
#[derive(Debug, Parser)]
#[command(
    name = "selma",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    memory::keep_freed();
    let cli = Cli::parse();
    match crash::guard(|| cli.command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has seen enough, as in `selma inspect FILE | head`.
        Err(error) if errors::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(format_args!("error: {}", errors::chain(&error)));
            ExitCode::from(if interrupt::requested() {
                interrupt::EXIT_CODE
            } else {
                1
            })
        }
    }
}
