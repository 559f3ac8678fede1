#![doc = include_str!("../README.md")]

pub mod draw;
mod error;
mod events;
mod expert;
mod files;
mod layout;
pub mod pretrain;
mod recipe;
pub mod report;
mod run;
mod stages;

pub use error::SelmaError;
pub use events::{RunEvent, RunObserver};
pub use expert::{Expert, Metrics};
pub use layout::Layout;
pub use recipe::{EvalStage, ImageStage, MergeStage, PromptStage, Recipe, TrainStage, Writer};
pub use run::{Model, Run, Stage};
