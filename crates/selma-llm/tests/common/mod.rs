//! A server that is asked as a language model.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "helpers of tests fail by panicking, and not every test needs all"
)]

use selma_http::loopback::{self, Act, Seen};
use selma_llm::{
    ChatModel, ChatRequest, ChatResponse, LlmError, Message, OpenAiClient, OpenAiConfig,
    SecretString,
};

pub(crate) const KEY: &str = "sk-very-secret-0123456789";
pub(crate) const GOOD: &str = r#"{"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"4. A dog."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;

pub(crate) fn http(status: &str, headers: &str, body: &str) -> Act {
    Act::answer(status, headers, body.as_bytes())
}

pub(crate) fn ok(body: &str) -> Act {
    http("200 OK", "Content-Type: application/json\r\n", body)
}

pub(crate) fn hi() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hi")])
}

pub(crate) struct Server(pub(crate) loopback::Server);

impl Server {
    /// Serves one connection after the other; the last act is repeated.
    pub(crate) fn new(acts: Vec<Act>) -> Self {
        Self(loopback::Server::scripted(acts))
    }

    /// Serves every request by what it says.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self(loopback::Server::answering(answer))
    }

    /// Settings that wait for nothing.
    pub(crate) fn config(&self) -> OpenAiConfig {
        let mut config = OpenAiConfig::new(format!("{}/v1", self.0.url()), "asked");
        config.backoff_s = 0.001;
        config.backoff_cap_s = 0.002;
        config.timeout_s = 20.0;
        config.max_retries = 2;
        config
    }

    pub(crate) fn client(&self) -> OpenAiClient {
        let key = SecretString::from(KEY);
        OpenAiClient::with_key(self.config(), Some(key)).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.seen()
    }
}

pub(crate) fn ask(server: &Server) -> Result<ChatResponse, LlmError> {
    server.client().complete(&hi())
}
