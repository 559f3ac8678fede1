//! SELMA: recipes, runs, stages and the report, from prompts to a merged multi-skill model.

mod error;
mod events;
mod files;
mod layout;
pub mod pretrain;
mod recipe;
pub mod report;
mod run;
mod stages;

pub use error::SelmaError;
pub use events::{RunEvent, RunObserver};
pub use layout::Layout;
pub use recipe::{EvalStage, ImageStage, MergeStage, PromptStage, Recipe, TrainStage, Writer};
pub use run::{Model, Run, Stage};
