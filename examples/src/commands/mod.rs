//! The sub-commands: each file turns the flags of one into the settings of a library, and runs it.

mod adapter_out;
mod adapters;
mod convert;
mod data;
mod diff;
mod eval;
mod eval_score;
mod events;
mod extract;
mod filter;
mod fuse;
mod generate;
mod images;
mod inspect;
mod merge;
mod model;
mod pairs;
mod pretrain;
mod prompts;
mod rate;
mod report;
mod resize;
mod run;
mod scheduler;
mod skills;
mod train;
mod values;

use clap::Subcommand;

/// What can be done. The help of each comes from its own `Args`.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Pretrain(pretrain::Args),
    Prompts(Box<prompts::Args>),
    Skills(skills::Args),
    Filter(filter::Args),
    Images(images::Args),
    Generate(Box<generate::Args>),
    Pairs(pairs::Args),
    Train(Box<train::Args>),
    Merge(merge::Args),
    Resize(resize::Args),
    Extract(extract::Args),
    Convert(convert::Args),
    Diff(diff::Args),
    Fuse(fuse::Args),
    Inspect(inspect::Args),
    Eval(eval::Args),
    Rate(rate::Args),
    Report(report::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Pretrain(args) => pretrain::run(args),
            Self::Images(args) => images::run(args),
            Self::Pairs(args) => pairs::run(&args),
            Self::Train(args) => train::run(*args),
            Self::Report(args) => report::run(args),
            Self::Prompts(args) => prompts::run(*args),
            Self::Skills(args) => skills::run(args),
            Self::Filter(args) => filter::run(args),
            Self::Generate(args) => generate::run(*args),
            Self::Merge(args) => merge::run(args),
            Self::Resize(args) => resize::run(args),
            Self::Extract(args) => extract::run(args),
            Self::Convert(args) => convert::run(args),
            Self::Diff(args) => diff::run(args),
            Self::Fuse(args) => fuse::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Rate(args) => rate::run(args),
        }
    }
}
