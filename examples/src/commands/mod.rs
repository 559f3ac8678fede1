//! The sub-commands: each file turns the flags of one into the settings of a library, and runs it.

mod eval;
mod events;
mod filter;
mod generate;
mod images;
mod inspect;
mod merge;
mod pretrain;
mod prompts;
mod report;
mod run;
mod train;
mod values;

use clap::Subcommand;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all of SELMA from a recipe.
    Run(run::Args),
    /// Train the miniature model from nothing.
    Pretrain(pretrain::Args),
    /// Write prompts with a language model, one file a skill.
    Prompts(prompts::Args),
    /// Keep prompts that differ from each other, drop near copies.
    Filter(filter::Args),
    /// Draw every prompt of a file into a dataset.
    Images(images::Args),
    /// Draw pictures of prompts with a Stable Diffusion model.
    Generate(generate::Args),
    /// Train a LoRA expert on a dataset.
    Train(train::Args),
    /// Merge LoRA adapters into one.
    Merge(merge::Args),
    /// Show what is in an adapter, a model folder or a dataset.
    Inspect(inspect::Args),
    /// Measure how faithful pictures are to their prompts.
    Eval(eval::Args),
    /// Write the report of a run again.
    Report(report::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Pretrain(args) => pretrain::run(args),
            Self::Images(args) => images::run(args),
            Self::Train(args) => train::run(args),
            Self::Report(args) => report::run(args),
            Self::Prompts(args) => prompts::run(args),
            Self::Filter(args) => filter::run(args),
            Self::Generate(args) => generate::run(args),
            Self::Merge(args) => merge::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Eval(args) => eval::run(args),
        }
    }
}
