#![doc = include_str!("../README.md")]

mod base64_bytes;
mod chat;
mod error;

pub use chat::{
    ChatModel, ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, Role, Usage,
};
pub use error::LlmError;
