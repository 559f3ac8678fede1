//! Davidsonian Scene Graph: faithfulness as the share of dependent yes/no questions answered "yes".
//!
//! Cho et al., "Davidsonian Scene Graph: Improving Reliability in Fine-grained Evaluation for
//! Text-to-Image Generation", ICLR 2024 (arXiv 2310.18235); reference code `j-min/DSG`.

mod question;

pub use question::DsgQuestion;
