//! The sub-commands: each file turns the flags of one into the settings of a library, and runs it.

mod eval;
mod filter;
mod generate;
mod inspect;
mod merge;
mod prompts;
mod values;

use clap::Subcommand;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write prompts with a language model, one file a skill.
    Prompts(prompts::Args),
    /// Keep prompts that differ from each other, drop near copies.
    Filter(filter::Args),
    /// Draw pictures of prompts with a Stable Diffusion model.
    Generate(generate::Args),
    /// Merge LoRA adapters into one.
    Merge(merge::Args),
    /// Show what is in an adapter, a model folder or a dataset.
    Inspect(inspect::Args),
    /// Measure how faithful pictures are to their prompts.
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
