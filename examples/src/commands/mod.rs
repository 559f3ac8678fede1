//! The sub-commands: each file turns the flags of one into the settings of a library, and runs it.

mod eval;
mod filter;
mod generate;
mod inspect;
mod merge;
mod prompts;
mod values;

use clap::Subcommand;

/// What can be done. The help of each comes from its own `Args`.
#[derive(Debug, Subcommand)]
pub enum Command {
    Prompts(prompts::Args),
    Filter(filter::Args),
    Generate(generate::Args),
    Merge(merge::Args),
    Inspect(inspect::Args),
    Eval(eval::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Prompts(args) => prompts::run(args),
            Self::Filter(args) => filter::run(args),
            Self::Generate(args) => generate::run(args),
            Self::Merge(args) => merge::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Eval(args) => eval::run(args),
        }
    }
}
