#![doc = include_str!("../README.md")]

mod base64_bytes;
mod chat;
mod client;
mod config;
mod error;
mod generator;
mod journal;
mod list;
mod pool;
mod prompt;
mod skill;
mod wire;

pub use chat::{
    ChatModel, ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, Role, Usage,
};
pub use client::{OpenAiClient, OpenAiConfig};
pub use config::PromptConfig;
pub use error::LlmError;
pub use generator::{PromptGenerator, PromptObserver};
pub use journal::{Journal, RequestHash};
pub use list::{NumberedList, parse_numbered_list};
pub use pool::{Generation, GenerationReport, PromptEvent};
pub use prompt::{
    Prompt, RejectReason, RejectedPrompt, read_prompts, read_rejected, write_prompts,
    write_rejected,
};
pub use secrecy::SecretString;
pub use skill::Skill;
pub use wire::Endpoint;
