//! Answers before they are read: [`Answer`].

use serde_json::Value;

use crate::wire::{excerpt, read_responses};
use crate::{ChatResponse, Endpoint, LlmError};

/// What a [`ChatModel`](crate::ChatModel) gave for one or more requests that it took together.
///
/// A journal keeps the bytes of a server as they came, so that an answer that could not be read is read after all once
/// the reader has learnt it.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// From a model in the same process: there is nothing to read. One response for each request.
    Read(Vec<ChatResponse>),
    /// From a server.
    Raw(RawAnswer),
}

/// The body of a server's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RawAnswer {
    /// The address that was asked.
    pub url: String,
    /// The interface that was asked.
    pub endpoint: Endpoint,
    /// The model that was asked.
    pub model: String,
    /// The answer's JSON as it came, but for the API key, which is taken out.
    pub body: String,
}

impl Answer {
    /// The responses to `requests` requests, in their order.
    ///
    /// The tokens of requests that were sent together are those of the first response, so that sums are right.
    ///
    /// # Errors
    /// [`LlmError::Answer`] if the body is not what the API promises, [`LlmError::Count`] if there are not as many responses.
    pub fn read(&self, requests: usize) -> Result<Vec<ChatResponse>, LlmError> {
        match self {
            Self::Read(responses) if responses.len() == requests => Ok(responses.clone()),
            Self::Read(responses) => Err(LlmError::Count {
                expected: requests,
                found: responses.len(),
            }),
            Self::Raw(raw) => raw.read(requests),
        }
    }
}

impl RawAnswer {
    fn read(&self, requests: usize) -> Result<Vec<ChatResponse>, LlmError> {
        serde_json::from_str::<Value>(&self.body)
            .map_err(|error| format!("it is not JSON ({error})"))
            .and_then(|body| read_responses(self.endpoint, &self.model, &body, requests))
            .map_err(|reason| LlmError::Answer {
                url: self.url.clone(),
                reason,
                excerpt: excerpt(&self.body),
            })
    }
}
