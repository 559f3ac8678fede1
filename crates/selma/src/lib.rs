#![doc = include_str!("../README.md")]

pub mod calibrate;
pub mod draw;
mod encode;
mod error;
mod events;
mod expert;
mod files;
mod layout;
mod merge_method;
pub mod pretrain;
mod preview;
pub mod prompts;
mod recipe;
pub mod report;
mod run;
mod scorer;
mod stages;
mod tensorboard;

pub use encode::{encode_datasets, encode_pairs};
pub use error::SelmaError;
pub use events::{RunEvent, RunObserver};
pub use expert::{Expert, Metrics, TrainingData};
pub use layout::Layout;
pub use merge_method::MergeMethod;
pub use preview::Previews;
pub use recipe::{
    EvalStage, ImageStage, MergeStage, ModelOptions, PromptStage, Recipe, TrainStage, Writer,
};
pub use run::{Model, Run, Stage};
pub use scorer::NamedScorer;
pub use stages::seeds::compare_seeds;
pub use tensorboard::TensorBoardLog;

pub use {
    selma_dataset as dataset, selma_diffusion as diffusion, selma_durable as durable,
    selma_eval as eval, selma_llm as llm, selma_lora as lora, selma_mini as mini,
    selma_rouge as rouge, selma_train as train,
};
