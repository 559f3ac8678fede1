#![doc = include_str!("../README.md")]

mod answer;
mod ask_all;
mod base64_bytes;
mod bias;
mod block_list;
mod budget;
mod chat;
mod client;
mod comparison;
mod complete_json;
mod config;
mod error;
mod folder;
mod generator;
mod journal;
mod json_list;
mod json_schema;
mod lexicon;
mod limits;
mod list;
mod logprobs;
mod model;
mod names;
mod openai_config;
mod parser;
mod pool;
mod prompt;
mod replay;
mod report;
mod request_hash;
mod rules;
mod secret;
mod skill;
mod statistics;
mod strategy;
#[cfg(test)]
mod testing;
mod toml_text;
mod wire;

pub use answer::{Answer, RawAnswer};
pub use ask_all::{AskAll, AskAllObserver, AskAllProgress};
pub use bias::{BiasHit, BiasKind, BiasReport};
pub use block_list::BlockList;
pub use budget::{Budget, Price, Spending};
pub use chat::{ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, Role, Usage};
pub use client::OpenAiClient;
pub use comparison::{ComparisonRow, PromptComparison};
pub use complete_json::{JsonAnswer, complete_json};
pub use config::PromptConfig;
pub use error::LlmError;
pub use folder::{PromptSet, compare_prompt_folders, read_prompt_folder};
pub use generator::{PromptGenerator, PromptObserver};
pub use journal::Journal;
pub use json_list::parse_json_list;
pub use json_schema::JsonSchema;
pub use limits::RateLimits;
pub use list::parse_numbered_list;
pub use logprobs::{Alternative, TokenLogprob, WordProbability};
pub use model::ChatModel;
pub use names::NameFinder;
pub use openai_config::{Azure, OpenAiConfig};
pub use parser::{ParsedList, Parser};
pub use pool::{Generation, PromptEvent};
pub use prompt::{
    Prompt, RejectReason, RejectedPrompt, read_prompts, read_rejected, write_prompts,
    write_rejected,
};
pub use replay::Replay;
pub use report::GenerationReport;
pub use request_hash::RequestHash;
pub use secrecy::SecretString;
pub use skill::Skill;
pub use statistics::{KindCoverage, PromptStatistics, WordCounts};
pub use strategy::{Attributes, Strategy, Topics};
pub use wire::Endpoint;
