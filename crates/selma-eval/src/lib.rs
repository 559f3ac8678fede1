#![doc = include_str!("../README.md")]

mod cache;
#[cfg(feature = "llm")]
mod chat_vqa;
mod compare;
pub mod dsg;
mod embedder;
mod error;
mod evaluate;
mod files;
mod images;
mod parallel;
#[cfg(feature = "llm")]
mod patience;
mod pool;
pub mod rating;
mod result;
mod scorer;
mod soft;
pub mod stats;
pub mod tifa;
mod vqa;
mod vqascore;

pub use cache::CachedVqa;
#[cfg(feature = "llm")]
pub use chat_vqa::{ChatPrompt, ChatVqa, PictureFormat};
pub use compare::{By, CategoryDifference, compare, compare_by, compare_questions};
pub use dsg::{Answers, DsgQuestion, QuestionSet};
pub use embedder::{Embedder, EmbedderId};
pub use error::{EvalError, Place};
pub use evaluate::{Progress, ask, evaluate};
pub use images::{ImageFolder, ImageSource};
pub use pool::pool;
pub use result::{EvalOptions, EvalResult, ItemResult, QuestionResult, score};
pub use scorer::{Scorer, mean_score, score_pictures};
pub use soft::SoftScore;
pub use stats::{Bootstrap, Estimate, Paired};
pub use vqa::{Reply, Told, Vqa, YesProbability, texts_of_replies};
pub use vqascore::{VqaScoreItem, VqaScoreProgress, VqaScoreResult, vqa_score};
