#![doc = include_str!("../README.md")]

mod base64_bytes;
mod bias;
mod block_list;
mod chat;
mod client;
mod comparison;
mod config;
mod error;
mod folder;
mod generator;
mod journal;
mod json_list;
mod lexicon;
mod list;
mod names;
mod parser;
mod pool;
mod prompt;
mod report;
mod rules;
mod skill;
mod statistics;
mod strategy;
mod toml_text;
mod wire;

pub use bias::{BiasHit, BiasKind, BiasReport};
pub use block_list::BlockList;
pub use chat::{
    ChatModel, ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, Role, Usage,
};
pub use client::{OpenAiClient, OpenAiConfig};
pub use comparison::{ComparisonRow, PromptComparison};
pub use config::PromptConfig;
pub use error::LlmError;
pub use folder::{PromptSet, compare_prompt_folders, read_prompt_folder};
pub use generator::{PromptGenerator, PromptObserver};
pub use journal::{Journal, RequestHash};
pub use json_list::parse_json_list;
pub use list::parse_numbered_list;
pub use names::NameFinder;
pub use parser::{ParsedList, Parser};
pub use pool::{Generation, PromptEvent};
pub use prompt::{
    Prompt, RejectReason, RejectedPrompt, read_prompts, read_rejected, write_prompts,
    write_rejected,
};
pub use report::GenerationReport;
pub use secrecy::SecretString;
pub use skill::Skill;
pub use statistics::{KindCoverage, PromptStatistics, WordCounts};
pub use strategy::{Attributes, Strategy, Topics};
pub use wire::Endpoint;
