//! Models that answer questions about pictures: BLIP-VQA.

mod blip;
mod search;

pub use blip::{Answer, BlipVqa};
pub use search::Search;
