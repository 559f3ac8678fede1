//! The stages of a run, one file each.

mod artefacts;
mod chosen;
pub(crate) mod eval;
mod held_back;
pub(crate) mod images;
pub(crate) mod merge;
mod pictures;
pub(crate) mod prompts;
mod questions;
pub(crate) mod report;
mod scores;
pub(crate) mod seeds;
mod selection;
pub(crate) mod train;
