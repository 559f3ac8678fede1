//! A client for OpenAI-compatible servers: [`OpenAiClient`].

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use selma_http::{Hint, bearer, delay, is_passing, is_transient};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::http::HeaderValue;

use crate::wire::{error_message, is_quota_error, read_response, request_body};
use crate::{ChatModel, ChatRequest, ChatResponse, Endpoint, LlmError};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Longest part of an answer that an error shows, in characters.
const EXCERPT: usize = 300;
/// Keys shorter than this are words such as `none` that local servers are given, and stay in answers.
const SECRET_LEN: usize = 12;

/// Where an [`OpenAiClient`] asks, whom, and how patiently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The server's address up to and with the version, e.g. `http://localhost:8000/v1`.
    pub base_url: String,
    /// The model's name as the server knows it.
    pub model: String,
    /// Which interface to use. Default `chat`.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// The environment variable that holds the API key, e.g. `OPENAI_API_KEY`. Default: none, no key is sent.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// The request's field for the token limit: `max_tokens` (default), or `max_completion_tokens` for models that
    /// refuse the former.
    #[serde(default = "default_token_limit")]
    pub token_limit_field: String,
    /// Seconds a request may take, from the connection to the last byte. Default 600.
    #[serde(default = "default_timeout")]
    pub timeout_s: f64,
    /// Seconds to wait for a connection. Default 5.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_s: f64,
    /// How often a failed request is sent again. Default 5.
    #[serde(default = "default_max_retries")]
    pub max_retries: u32,
    /// Seconds before the first retry; each further one waits twice as long. Default 0.5.
    #[serde(default = "default_backoff")]
    pub backoff_s: f64,
    /// Longest such wait in seconds. Default 8.
    #[serde(default = "default_backoff_cap")]
    pub backoff_cap_s: f64,
    /// Address of an HTTP proxy, without a password. Default: none; the environment is not asked.
    #[serde(default)]
    pub proxy: Option<String>,
}

fn default_token_limit() -> String {
    "max_tokens".to_owned()
}

fn default_timeout() -> f64 {
    600.0
}

fn default_connect_timeout() -> f64 {
    5.0
}

fn default_max_retries() -> u32 {
    5
}

fn default_backoff() -> f64 {
    0.5
}

fn default_backoff_cap() -> f64 {
    8.0
}

impl OpenAiConfig {
    /// The defaults for a server and a model.
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            endpoint: Endpoint::default(),
            api_key_env: None,
            token_limit_field: default_token_limit(),
            timeout_s: default_timeout(),
            connect_timeout_s: default_connect_timeout(),
            max_retries: default_max_retries(),
            backoff_s: default_backoff(),
            backoff_cap_s: default_backoff_cap(),
            proxy: None,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`LlmError::Config`] names the first field that cannot be used.
    pub fn validate(&self) -> Result<(), LlmError> {
        let wrong = |field, reason: &str| {
            Err(LlmError::Config {
                field,
                reason: reason.to_owned(),
            })
        };
        let address = self
            .base_url
            .strip_prefix("http://")
            .or_else(|| self.base_url.strip_prefix("https://"));
        match address.map(|address| address.split('/').next().unwrap_or_default()) {
            None | Some("") => {
                return wrong("base_url", "must begin with http:// or https:// and a host");
            }
            // The address is shown in errors, so it must hold no secret; it is not shown here for the same reason.
            Some(host) if host.contains('@') => {
                return wrong("base_url", "must not hold a user name or password");
            }
            Some(_) if self.base_url.contains(['?', '#']) => {
                return wrong("base_url", "must not hold a query or fragment");
            }
            Some(_) => {}
        }
        for (field, text) in [
            ("model", Some(&self.model)),
            ("token_limit_field", Some(&self.token_limit_field)),
            ("api_key_env", self.api_key_env.as_ref()),
            ("proxy", self.proxy.as_ref()),
        ] {
            if text.is_some_and(|text| text.trim().is_empty()) {
                return wrong(field, "is empty");
            }
        }
        if self.proxy.as_ref().is_some_and(|proxy| proxy.contains('@')) {
            return wrong("proxy", "must not hold a user name or password");
        }
        for (field, seconds) in [
            ("timeout_s", self.timeout_s),
            ("connect_timeout_s", self.connect_timeout_s),
            ("backoff_s", self.backoff_s),
            ("backoff_cap_s", self.backoff_cap_s),
        ] {
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                return wrong(field, "must be greater than 0 and at most 86400 seconds");
            }
        }
        Ok(())
    }
}

/// A [`ChatModel`] behind the API that OpenAI, vLLM, llama.cpp, Ollama, LM Studio and many others serve.
///
/// Requests that fail for a passing reason (no connection, a broken one, a time-out, status 408, 409, 429 or 5xx) are
/// sent again; `Retry-After` is heeded, and a used-up quota is final. The API key is sent in the `Authorization` header
/// and appears nowhere else: not in `Debug`, nor in errors or answers, even if the server repeats it.
pub struct OpenAiClient {
    config: OpenAiConfig,
    url: String,
    agent: ureq::Agent,
    key: Option<SecretString>,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for OpenAiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiClient")
            .field("config", &self.config)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl OpenAiClient {
    /// A client with the key from the environment variable that the configuration names, if it names one.
    ///
    /// # Errors
    /// [`LlmError::KeyMissing`] if that variable is unset or empty, else those of [`OpenAiClient::with_key`].
    pub fn new(config: OpenAiConfig) -> Result<Self, LlmError> {
        let key = match &config.api_key_env {
            None => None,
            Some(variable) => match std::env::var(variable) {
                Ok(key) if !key.trim().is_empty() => Some(SecretString::from(key)),
                _ => {
                    return Err(LlmError::KeyMissing {
                        variable: variable.clone(),
                    });
                }
            },
        };
        Self::with_key(config, key)
    }

    /// A client with a key from elsewhere, or none. The environment is not read.
    ///
    /// # Errors
    /// [`LlmError::Config`] for settings that cannot be used, [`LlmError::KeyInvalid`] for a key that no header can carry.
    pub fn with_key(config: OpenAiConfig, key: Option<SecretString>) -> Result<Self, LlmError> {
        config.validate()?;
        let authorization = key.as_ref().map(bearer).transpose();
        let authorization = authorization.map_err(|_| LlmError::KeyInvalid)?;
        let proxy = config.proxy.as_deref().map(ureq::Proxy::new).transpose();
        let proxy = proxy.map_err(|error| LlmError::Config {
            field: "proxy",
            reason: format!("cannot be used: {error}"),
        })?;
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST loses its body and might carry the key elsewhere: show the status instead.
            .max_redirects(0)
            .timeout_global(seconds(config.timeout_s))
            .timeout_connect(seconds(config.connect_timeout_s))
            .user_agent(concat!("selma-llm/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .build()
            .new_agent();
        let url = format!(
            "{}/{}",
            config.base_url.trim_end_matches('/'),
            config.endpoint.path()
        );
        Ok(Self {
            config,
            url,
            agent,
            key,
            authorization,
        })
    }

    /// The settings in use.
    pub fn config(&self) -> &OpenAiConfig {
        &self.config
    }

    /// One attempt.
    fn attempt(&self, body: &str) -> Result<ChatResponse, Failure> {
        let mut post = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            post = post.header("authorization", authorization);
        }
        let mut response = post.send(body).map_err(Failure::Transport)?;
        let status = response.status();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let hint = Hint::read(header, SystemTime::now());
        let answer = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(Failure::Transport)?;
        let answer = String::from_utf8_lossy(&answer);
        let parsed = serde_json::from_str::<Value>(&answer);
        if !status.is_success() {
            let body = parsed.unwrap_or_default();
            let message = error_message(&body).unwrap_or_else(|| answer.into_owned());
            return Err(Failure::Status {
                status: status.as_u16(),
                message: self.excerpt(&message),
                quota: is_quota_error(&body),
                hint,
            });
        }
        let mut body = parsed.map_err(|error| {
            if error.is_eof() && !answer.trim().is_empty() {
                // The end is missing and the length did not tell: the connection broke.
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut off");
                return Failure::Transport(source.into());
            }
            self.unreadable(&answer, format!("it is not JSON ({error})"))
        })?;
        self.redact_json(&mut body);
        read_response(self.config.endpoint, &self.config.model, &body)
            .map_err(|reason| self.unreadable(&answer, self.redact(&reason)))
    }

    fn unreadable(&self, answer: &str, reason: String) -> Failure {
        Failure::Final(Box::new(LlmError::Answer {
            url: self.url.clone(),
            reason,
            excerpt: self.excerpt(answer),
        }))
    }

    /// The beginning of a server's text on one line, without the key.
    fn excerpt(&self, text: &str) -> String {
        let text = self.redact(text);
        let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = words.char_indices().nth(EXCERPT) {
            words.truncate(end);
            words.push('…');
        }
        words
    }

    fn redact(&self, text: &str) -> String {
        match self.key.as_ref().map(|key| key.expose_secret().trim()) {
            Some(key) => text.replace(key, "[key]"),
            None => text.to_owned(),
        }
    }

    /// Takes the key out of every text of an answer, because answers are written to journals.
    fn redact_json(&self, value: &mut Value) {
        let key = self.key.as_ref().map(|key| key.expose_secret().trim());
        let Some(key) = key.filter(|key| key.len() >= SECRET_LEN) else {
            return;
        };
        match value {
            Value::String(text) if text.contains(key) => *text = text.replace(key, "[key]"),
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Value::Object(fields) => fields
                .values_mut()
                .for_each(|field| self.redact_json(field)),
            _ => {}
        }
    }
}

/// Why an attempt failed, and what the server said about another.
enum Failure {
    Transport(ureq::Error),
    Status {
        status: u16,
        message: String,
        quota: bool,
        hint: Hint,
    },
    Final(Box<LlmError>),
}

impl Failure {
    /// How long to wait before the next attempt, `None` if there shall be none.
    fn delay(&self, retry: u32, config: &OpenAiConfig) -> Option<Duration> {
        let hint = match self {
            Self::Final(_) | Self::Status { quota: true, .. } => return None,
            Self::Transport(error) if !is_passing(error) => return None,
            Self::Transport(_) => Hint::default(),
            Self::Status { status, hint, .. } => {
                if !hint.should.unwrap_or_else(|| is_transient(*status)) {
                    return None;
                }
                *hint
            }
        };
        let base = Duration::from_secs_f64(config.backoff_s);
        let cap = Duration::from_secs_f64(config.backoff_cap_s);
        delay(retry, hint.after, base, cap)
    }

    fn into_error(self, url: &str, attempts: u32) -> LlmError {
        let url = url.to_owned();
        match self {
            Self::Final(error) => *error,
            Self::Transport(source) => LlmError::Transport {
                url,
                attempts,
                source: Box::new(source),
            },
            Self::Status {
                message,
                quota: true,
                ..
            } => LlmError::Quota { url, message },
            Self::Status {
                status, message, ..
            } => LlmError::Status {
                url,
                status,
                attempts,
                message,
            },
        }
    }
}

impl ChatModel for OpenAiClient {
    fn name(&self) -> &str {
        &self.config.model
    }

    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        let body = request_body(
            self.config.endpoint,
            &self.config.model,
            &self.config.token_limit_field,
            request,
        )?
        .to_string();
        let mut attempts = 0;
        loop {
            let failure = match self.attempt(&body) {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let retry = attempts;
            attempts += 1;
            let wait = (retry < self.config.max_retries)
                .then(|| failure.delay(retry, &self.config))
                .flatten();
            match wait {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(failure.into_error(&self.url, attempts)),
            }
        }
    }
}
