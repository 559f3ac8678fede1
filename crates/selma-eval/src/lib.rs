#![doc = include_str!("../README.md")]

mod compare;
pub mod dsg;
mod error;
mod evaluate;
mod files;
mod images;
mod pool;
pub mod rating;
mod result;
mod scorer;
pub mod stats;
mod vqa;

pub use compare::{By, CategoryDifference, compare, compare_by, compare_questions};
pub use dsg::{Answers, DsgQuestion, QuestionSet};
pub use error::{EvalError, Place};
pub use evaluate::{Progress, ask, evaluate};
pub use images::{ImageFolder, ImageSource};
pub use pool::pool;
pub use result::{EvalOptions, EvalResult, ItemResult, QuestionResult, score};
pub use scorer::{Scorer, mean_score, score_pictures};
pub use stats::{Bootstrap, Estimate, Paired};
pub use vqa::Vqa;
