#![doc = include_str!("../README.md")]

mod adapters;
pub mod calibrate;
pub mod draw;
mod embedder;
mod encode;
mod error;
mod events;
mod expert;
mod files;
mod further;
mod judge;
mod layout;
mod merge_method;
mod plan;
pub mod pretrain;
mod preview;
pub mod prompts;
mod recipe;
pub mod report;
mod rounds;
mod run;
mod scorer;
mod selection;
mod stages;
mod step_log;
mod tensorboard;
mod validation;
mod vqa;

pub use embedder::NamedEmbedder;
pub use encode::DataEncoder;
pub use error::SelmaError;
pub use events::{RunEvent, RunObserver};
pub use expert::{Expert, TrainingData};
pub use further::{FurtherMerge, FurtherMixture, FurtherTraining, MixtureKind, TrainingPictures};
pub use judge::{BlipJudge, Judge, QuestionFile};
pub use layout::Layout;
pub use merge_method::MergeMethod;
pub use plan::{Job, jobs};
pub use preview::Previews;
pub use recipe::{
    EvalStage, ImageStage, MergeStage, ModelOptions, PromptStage, Recipe, TrainStage, Writer,
};
pub use rounds::{Round, RoundStage, compare_rounds};
pub use run::{Model, Run, Stage};
pub use scorer::{NamedScorer, ScorerName, ScorerSettings};
pub use selection::{Selection, Selector};
pub use stages::seeds::compare_seeds;
pub use step_log::{Metrics, StepTiming};
pub use tensorboard::TensorBoardLog;
pub use validation::{Pick, Validation, ValidationLoss};
pub use vqa::{NamedVqa, Phrase};

pub use {
    selma_dataset as dataset, selma_diffusion as diffusion, selma_durable as durable,
    selma_eval as eval, selma_llm as llm, selma_lora as lora, selma_mini as mini,
    selma_rouge as rouge, selma_train as train,
};
