#![doc = include_str!("../README.md")]

mod error;
mod filter;
mod growth;
mod lcs;
mod lsum;
mod rouge;
mod score;
mod stemmer;
mod tokenizer;
mod words;

pub use error::RougeError;
pub use filter::{DiversityFilter, FilterConfig, Nearest, Verdict, WithoutTokens};
pub use lcs::lcs_len;
pub use lsum::rouge_lsum;
pub use rouge::{rouge_l, rouge_n};
pub use score::Score;
pub use tokenizer::Tokenizer;
