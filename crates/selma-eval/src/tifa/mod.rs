//! TIFA: faithfulness as the share of multiple-choice questions answered as the prompt says.
//!
//! Hu et al., "TIFA: Accurate and Interpretable Text-to-Image Faithfulness Evaluation with Question Answering", ICCV
//! 2023 (arXiv 2303.11897); reference code `tifascore` of `Yushi-Hu/tifa`.

mod answers;
mod ask;
mod choice;
mod nearest;
mod question;
mod result;

pub use answers::{TifaAnswer, TifaAnswers};
pub use ask::{TifaProgress, TifaPrompt, ask, evaluate};
pub use choice::{ChoiceMethod, choose};
pub use question::{TifaItem, TifaQuestion, TifaSet};
pub use result::{TifaItemResult, TifaQuestionResult, TifaResult, score};
