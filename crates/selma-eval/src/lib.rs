#![doc = include_str!("../README.md")]

pub mod dsg;
mod error;
pub mod vqa;

pub use dsg::DsgQuestion;
pub use error::EvalError;
pub use vqa::Vqa;
