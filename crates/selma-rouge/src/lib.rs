#![doc = include_str!("../README.md")]

mod error;
mod filter;
mod lcs;
mod score;
mod tokenizer;

pub use error::RougeError;
pub use filter::{DiversityFilter, Nearest, Verdict};
pub use lcs::lcs_len;
pub use score::{Score, rouge_l};
pub use tokenizer::Tokenizer;
