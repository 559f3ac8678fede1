//! The one error type of this crate.

use std::path::PathBuf;

use selma_durable::DurableError;
use selma_rouge::RougeError;

use crate::RequestHash;

/// Everything that can go wrong here. No variant ever carries an API key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// A file or journal cannot be read or written, or a line of it is not what it should be.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A skill file is not TOML or has an unknown, missing or mistyped field.
    #[error("{}, line {line}: {reason}", path.display())]
    SkillSyntax {
        /// The skill file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What the TOML reader says; it names the field.
        reason: String,
    },
    /// A field of a skill has a value that cannot be used.
    #[error("{}: field `{field}` {reason}", path.display())]
    SkillField {
        /// The skill file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No skill of this name is built in.
    #[error("unknown skill '{name}', expected one of {}", known.join(", "))]
    UnknownSkill {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// A setting has a value that cannot be used.
    #[error("setting `{field}` {reason}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of the diversity filter cannot be used.
    #[error(transparent)]
    Filter(#[from] RougeError),
    /// A row of a file of prompts has the right form, but a value that cannot be used.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The environment variable that should hold the API key is not set, empty or not Unicode.
    #[error("environment variable {variable} holds no API key")]
    KeyMissing {
        /// The variable.
        variable: String,
    },
    /// The API key has characters that no HTTP header may have.
    #[error("the API key has characters that an HTTP header cannot carry")]
    KeyInvalid,
    /// The server could not be reached, or the connection broke or was too slow.
    #[error("no answer from {url} after {attempts} attempt(s): {source}")]
    Transport {
        /// The address asked.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        source: Box<ureq::Error>,
    },
    /// The server answered with an error status.
    #[error("{url} answered status {status} after {attempts} attempt(s): {message}")]
    Status {
        /// The address asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// The server's message, or the beginning of the page it sent.
        message: String,
    },
    /// The account's quota is used up: asking again cannot help.
    #[error("{url} says that the quota is used up: {message}")]
    Quota {
        /// The address asked.
        url: String,
        /// The server's message.
        message: String,
    },
    /// The server answered with success, but not with what the API promises.
    #[error("{url} sent an answer that cannot be read: {reason}; it begins: {excerpt}")]
    Answer {
        /// The address asked.
        url: String,
        /// What is wrong, with the path of the field in question.
        reason: String,
        /// The beginning of the answer.
        excerpt: String,
    },
    /// The model cannot serve such a request, e.g. one with images.
    #[error("model '{model}' does not support {what}")]
    Unsupported {
        /// The model that was asked.
        model: String,
        /// What it was asked for.
        what: String,
    },
    /// A model outside this crate failed for a reason of its own.
    #[error("model '{model}' failed: {source}")]
    Model {
        /// The model that was asked.
        model: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The model gives no new prompts any more.
    #[error(
        "skill '{skill}' stalled at {kept} of {target} prompts: the last {stalled} of {requests} requests gave nothing new"
    )]
    Stalled {
        /// The skill.
        skill: String,
        /// Prompts accepted so far.
        kept: usize,
        /// Prompts wanted.
        target: usize,
        /// Requests without a new prompt, in a row.
        stalled: u32,
        /// All requests so far.
        requests: u64,
    },
    /// The observer asked to stop. What was answered so far is in the journal, if there is one.
    #[error("skill '{skill}' was cancelled at {kept} of {target} prompts")]
    Cancelled {
        /// The skill.
        skill: String,
        /// Prompts accepted so far.
        kept: usize,
        /// Prompts wanted.
        target: usize,
    },
    /// A folder that should have prompts has none.
    #[error("{} has no file of prompts, SKILL.jsonl", path.display())]
    NoPrompts {
        /// The folder.
        path: PathBuf,
    },
    /// The file that should hold the API key holds none, or more than one line.
    #[error("{} holds no API key on a single line", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
    },
    /// The next request might exceed the client's budget, and was not sent.
    #[error(
        "the budget of {limit} {unit} is used up: {used} are used, and what is asked next is expected to take {expected}"
    )]
    Budget {
        /// What is counted: tokens or money.
        unit: &'static str,
        /// How much is used.
        used: f64,
        /// How much the next request and those on their way are expected to use.
        expected: f64,
        /// How much may be used.
        limit: f64,
    },
    /// A journal that is replayed has no answer to a request.
    #[error("{} has no answer of model '{model}' to request {index} ({hash}), which begins: {excerpt:?}", path.display())]
    NotRecorded {
        /// The journal.
        path: PathBuf,
        /// The model that would have been asked.
        model: String,
        /// Number of the request in its run, from 0.
        index: u64,
        /// The hash under which it would be recorded.
        hash: RequestHash,
        /// The beginning of its text.
        excerpt: String,
    },
    /// A JSON schema is none, or says something that cannot be checked here.
    #[error("schema '{name}', {path}: {reason}")]
    Schema {
        /// Name of the schema.
        name: String,
        /// Place in it, as a JSON pointer.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model was asked for JSON twice and gave none that fits.
    #[error("model '{model}' gave no JSON of form '{schema}': {reason}; it answered: {excerpt}")]
    Json {
        /// The model that was asked.
        model: String,
        /// Name of the schema.
        schema: String,
        /// What is wrong with the second answer, with the path of the field in question.
        reason: String,
        /// The beginning of the second answer.
        excerpt: String,
    },
    /// A model answered more or fewer requests than it was given together.
    #[error("expected responses to {expected} requests, found {found}")]
    Count {
        /// Requests.
        expected: usize,
        /// Responses.
        found: usize,
    },
    /// The observer asked to stop. What was answered so far is in the journal, if there is one.
    #[error("stopped after {answered} of {total} answers")]
    Stopped {
        /// Requests answered so far.
        answered: usize,
        /// Requests in all.
        total: usize,
    },
}
