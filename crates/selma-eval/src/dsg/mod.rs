//! Davidsonian Scene Graph: faithfulness as the share of dependent yes/no questions answered "yes".
//!
//! Cho et al., "Davidsonian Scene Graph: Improving Reliability in Fine-grained Evaluation for
//! Text-to-Image Generation", ICLR 2024 (arXiv 2310.18235); reference code `j-min/DSG`.

mod aggregation;
mod answers;
mod dependency;
mod graph;
mod question;
mod set;
mod table;
#[cfg(feature = "llm")]
mod write;

pub use aggregation::{Aggregation, AnswerMatch, MissingItems};
pub use answers::Answers;
pub use dependency::{Quirk, Quirks};
pub use question::DsgQuestion;
pub use set::{Item, QuestionSet};
#[cfg(feature = "llm")]
pub use write::{UnwrittenItem, WriteProgress, WrittenQuestions, write_questions};
