#![doc = include_str!("../README.md")]

mod adapters;
pub mod calibrate;
pub mod draw;
mod encode;
mod error;
mod events;
mod expert;
mod files;
mod further;
mod layout;
mod merge_method;
mod plan;
pub mod pretrain;
mod preview;
pub mod prompts;
mod recipe;
pub mod report;
mod run;
mod scorer;
mod stages;
mod step_log;
mod tensorboard;
mod vqa;

pub use encode::DataEncoder;
pub use error::SelmaError;
pub use events::{RunEvent, RunObserver};
pub use expert::{Expert, TrainingData};
pub use further::{FurtherMerge, FurtherTraining, TrainingPictures};
pub use layout::Layout;
pub use merge_method::MergeMethod;
pub use plan::{Job, jobs};
pub use preview::Previews;
pub use recipe::{
    EvalStage, ImageStage, MergeStage, ModelOptions, PromptStage, Recipe, TrainStage, Writer,
};
pub use run::{Model, Run, Stage};
pub use scorer::NamedScorer;
pub use stages::seeds::compare_seeds;
pub use step_log::{Metrics, StepTiming};
pub use tensorboard::TensorBoardLog;
pub use vqa::{NamedVqa, Phrase};

pub use {
    selma_dataset as dataset, selma_diffusion as diffusion, selma_durable as durable,
    selma_eval as eval, selma_llm as llm, selma_lora as lora, selma_mini as mini,
    selma_rouge as rouge, selma_train as train,
};
