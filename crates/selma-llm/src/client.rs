//! A client for OpenAI-compatible servers: [`OpenAiClient`].

use std::io::{self, Read as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use secrecy::SecretString;
use selma_http::{Hint, delay, is_passing, is_transient, rate_pause};
use serde_json::{Value, json};

use crate::budget::Ledger;
use crate::limits::Limiter;
use crate::secret::{Key, read_key};
use crate::wire::{
    Fields, check_answer, error_message, error_status, excerpt, is_quota_error, read_usage,
    request_body, same_but_prompt,
};
use crate::{
    Answer, ChatModel, ChatRequest, ChatResponse, Endpoint, LlmError, OpenAiConfig, Price,
    RawAnswer, Spending, Usage,
};

/// Bytes that are taken for a token where nobody has counted.
const BYTES_PER_TOKEN: usize = 4;

/// A [`ChatModel`] behind the API that OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio and many others serve.
///
/// Requests that fail for a passing reason (no connection, a broken one, a time-out, status 408, 409, 429 or 5xx) are
/// sent again; `Retry-After` is heeded, and a used-up quota is final. Requests wait for the rate limits of the settings
/// and of the server, and none is sent that might exceed the budget. The API key is sent in its header and appears nowhere
/// else: not in `Debug`, nor in errors or answers, even if the server repeats it.
#[derive(Debug)]
pub struct OpenAiClient {
    config: OpenAiConfig,
    url: String,
    agent: ureq::Agent,
    key: Key,
    /// The settings that answers depend on.
    settings: Option<Value>,
    meter: Mutex<Meter>,
}

/// What all requests of a client share.
#[derive(Debug)]
struct Meter {
    ledger: Ledger,
    limiter: Limiter,
}

impl OpenAiClient {
    /// A client with the key from the environment variable or file that the configuration names, if it names one.
    ///
    /// # Errors
    /// [`LlmError::KeyMissing`] if that variable is unset or empty, [`LlmError::KeyFile`] and [`LlmError::Durable`] if the
    /// file has no key or cannot be read, else those of [`OpenAiClient::with_key`].
    pub fn new(config: OpenAiConfig) -> Result<Self, LlmError> {
        config.validate()?;
        let key = read_key(&config)?;
        Self::with_key(config, key)
    }

    /// A client with a key from elsewhere, or none. Environment and key file are not read.
    ///
    /// # Errors
    /// [`LlmError::Config`] for settings that cannot be used, [`LlmError::KeyInvalid`] for a key that no header can carry.
    pub fn with_key(config: OpenAiConfig, key: Option<SecretString>) -> Result<Self, LlmError> {
        config.validate()?;
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
        let plain = config.extra_body.is_empty() && config.omit_fields.is_empty();
        let settings = (!plain)
            .then(|| json!({"extra_body": config.extra_body, "omit_fields": config.omit_fields}));
        Ok(Self {
            url: config.url(),
            agent,
            key: Key::new(key, config.key_header())?,
            settings,
            meter: Mutex::new(Meter {
                ledger: Ledger::new(config.price, config.budget),
                limiter: Limiter::new(&config.limits, Instant::now()),
            }),
            config,
        })
    }

    /// The settings in use.
    pub fn config(&self) -> &OpenAiConfig {
        &self.config
    }

    /// What was used so far. Failed attempts, whose tokens nobody tells, are not in it.
    pub fn spent(&self) -> Spending {
        self.meter().ledger.spent()
    }

    /// Numbers alone are behind the lock, and each is right at any time: a panic elsewhere spoils nothing.
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a body until it is answered or cannot be, in its turn.
    fn send(&self, body: &str, expected: u64) -> Result<Body, LlmError> {
        let mut attempts = 0;
        loop {
            let turn = self.meter().limiter.admit(expected, Instant::now());
            thread::sleep(turn);
            let failure = match self.attempt(body) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let retry = attempts;
            attempts += 1;
            let wait = (retry < self.config.max_retries)
                .then(|| failure.delay(retry, &self.config))
                .flatten();
            let now = Instant::now();
            // What failed has used no tokens.
            self.meter().limiter.settle(expected, 0, now);
            let Some(wait) = wait else {
                return Err(failure.into_error(&self.url, attempts));
            };
            if let Failure::Status { status: 429, .. } = failure {
                // The others ask the same server.
                self.meter().limiter.pause(wait, now);
            }
            thread::sleep(wait);
        }
    }

    /// One attempt.
    fn attempt(&self, body: &str) -> Result<Body, Failure> {
        let mut post = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json");
        for (name, value) in &self.config.extra_headers {
            post = post.header(name, value);
        }
        if let Some((name, value)) = self.key.header() {
            post = post.header(name, value);
        }
        let mut response = post.send(body).map_err(Failure::Transport)?;
        let status = response.status();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let hint = Hint::read(header, SystemTime::now());
        if let Some(pause) = rate_pause(header) {
            self.meter().limiter.pause(pause, Instant::now());
        }
        let limit = self.config.max_answer_bytes;
        let mut answer = Vec::new();
        let read = response
            .body_mut()
            .as_reader()
            .take(limit.saturating_add(1))
            .read_to_end(&mut answer);
        read.map_err(|error| Failure::Transport(error.into()))?;
        let too_long = answer.len() as u64 > limit;
        let answer = String::from_utf8_lossy(&answer);
        if too_long {
            return Err(self.unreadable(&answer, format!("it is longer than {limit} bytes")));
        }
        let mut parsed = serde_json::from_str::<Value>(&answer);
        // A key that the JSON spells in its own way is found only in its values.
        let mut answer = answer.into_owned();
        if let Ok(body) = &mut parsed
            && self.key.redact_json(body)
        {
            answer = body.to_string();
        }
        let failed = match &parsed {
            Err(_) if status.is_success() => None,
            // Gateways report failures of the servers behind them with a status of success.
            Ok(body) if status.is_success() => error_status(body),
            _ => Some(status.as_u16()),
        };
        if let Some(status) = failed {
            let body = parsed.unwrap_or_default();
            let message = error_message(&body).unwrap_or(answer);
            return Err(Failure::Status {
                status,
                message: excerpt(&self.key.redact(&message)),
                quota: is_quota_error(&body),
                hint,
            });
        }
        let body = parsed.map_err(|error| {
            if error.is_eof() && !answer.trim().is_empty() {
                // The end is missing and the length did not tell: the connection broke.
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut off");
                return Failure::Transport(source.into());
            }
            self.unreadable(&answer, format!("it is not JSON ({error})"))
        })?;
        check_answer(&body).map_err(|reason| self.unreadable(&answer, self.key.redact(&reason)))?;
        Ok(Body {
            usage: read_usage(&body),
            text: answer,
        })
    }

    fn unreadable(&self, answer: &str, reason: String) -> Failure {
        Failure::Final(Box::new(LlmError::Answer {
            url: self.url.clone(),
            reason,
            excerpt: excerpt(&self.key.redact(answer)),
        }))
    }
}

/// The body of an answer that has passed [`check_answer`], without the key.
struct Body {
    text: String,
    usage: Option<Usage>,
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
        let mut responses = self.ask(&[request])?.read(1)?;
        responses.pop().ok_or(LlmError::Count {
            expected: 1,
            found: 0,
        })
    }

    /// Prompts for the completions interface go together if they differ in nothing else.
    fn batch_len(&self, requests: &[&ChatRequest]) -> usize {
        match (self.config.endpoint, requests) {
            (Endpoint::Completions, [first, others @ ..]) => {
                let alike = others
                    .iter()
                    .take(self.config.prompts_per_request - 1)
                    .take_while(|other| same_but_prompt(first, other));
                1 + alike.count()
            }
            _ => 1,
        }
    }

    fn ask(&self, requests: &[&ChatRequest]) -> Result<Answer, LlmError> {
        for schema in requests.iter().filter_map(|r| r.json_schema.as_ref()) {
            schema.validate()?;
        }
        let fields = Fields {
            endpoint: self.config.endpoint,
            model: &self.config.model,
            token_limit: &self.config.token_limit_field,
            omit: &self.config.omit_fields,
            extra: &self.config.extra_body,
        };
        let body = request_body(fields, requests)?.to_string();
        let bytes: usize = requests.iter().map(|request| request.text().len()).sum();
        let tokens = tokens_of(bytes);
        let expected = self.meter().ledger.reserve(tokens)?;
        let answer = self.send(&body, expected);
        let mut meter = self.meter();
        match &answer {
            Ok(answer) => {
                let usage = answer.usage.unwrap_or_else(|| Usage {
                    prompt_tokens: tokens,
                    completion_tokens: tokens_of(answer.text.len()),
                });
                let used = usage.total_tokens();
                meter.limiter.settle(expected, used, Instant::now());
                meter.ledger.settle(expected, usage, answer.usage.is_none());
            }
            Err(_) => meter.ledger.release(expected),
        }
        Ok(Answer::Raw(RawAnswer {
            url: self.url.clone(),
            endpoint: self.config.endpoint,
            model: self.config.model.clone(),
            body: answer?.text,
        }))
    }

    fn in_flight(&self) -> usize {
        self.config.in_flight
    }

    fn settings(&self) -> Option<&Value> {
        self.settings.as_ref()
    }

    fn price(&self) -> Option<Price> {
        self.config.price
    }
}

fn tokens_of(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN) as u64
}
