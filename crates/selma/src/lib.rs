//! SELMA: recipes, runs, stages and the report, from prompts to a merged multi-skill model.

mod error;
mod files;
pub mod pretrain;

pub use error::SelmaError;
