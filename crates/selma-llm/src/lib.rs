#![doc = include_str!("../README.md")]

mod answer;
mod ask_all;
mod base64_bytes;
mod budget;
mod chat;
mod client;
mod complete_json;
mod config;
mod error;
mod generator;
mod journal;
mod json_schema;
mod limits;
mod list;
mod logprobs;
mod model;
mod openai_config;
mod pool;
mod prompt;
mod replay;
mod request_hash;
mod secret;
mod skill;
mod wire;

pub use answer::{Answer, RawAnswer};
pub use ask_all::{AskAll, AskAllObserver, AskAllProgress};
pub use budget::{Budget, Price, Spending};
pub use chat::{ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, Role, Usage};
pub use client::OpenAiClient;
pub use complete_json::{JsonAnswer, complete_json};
pub use config::PromptConfig;
pub use error::LlmError;
pub use generator::{PromptGenerator, PromptObserver};
pub use journal::Journal;
pub use json_schema::JsonSchema;
pub use limits::RateLimits;
pub use list::{NumberedList, parse_numbered_list};
pub use logprobs::{Alternative, TokenLogprob, WordProbability};
pub use model::ChatModel;
pub use openai_config::{Azure, OpenAiConfig};
pub use pool::{Generation, GenerationReport, PromptEvent};
pub use prompt::{
    Prompt, RejectReason, RejectedPrompt, read_prompts, read_rejected, write_prompts,
    write_rejected,
};
pub use replay::Replay;
pub use request_hash::RequestHash;
pub use secrecy::SecretString;
pub use skill::Skill;
pub use wire::Endpoint;
