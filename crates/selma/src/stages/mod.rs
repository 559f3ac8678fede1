//! The stages of a run, one file each.

mod artefacts;
pub(crate) mod eval;
pub(crate) mod images;
pub(crate) mod merge;
mod pictures;
pub(crate) mod prompts;
pub(crate) mod report;
pub(crate) mod seeds;
pub(crate) mod train;
