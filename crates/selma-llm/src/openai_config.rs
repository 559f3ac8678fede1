//! The settings of a client: [`OpenAiConfig`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ureq::http::{HeaderName, HeaderValue};

use crate::wire::{OPTIONAL_FIELDS, OUR_FIELDS};
use crate::{Budget, Endpoint, LlmError, Price, RateLimits};

/// Headers that are sent anyway, or that only the connection may set.
const OUR_HEADERS: [&str; 6] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
    "user-agent",
];
/// Parts of names of headers that hold secrets, which settings, written into run folders, must not.
const SECRET_NAMES: [&str; 6] = ["auth", "key", "token", "secret", "password", "cookie"];

/// Where an [`OpenAiClient`](crate::OpenAiClient) asks, whom, and how patiently.
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
    /// The file that holds the API key, on a single line, instead of a variable. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// The header that carries the key as it is, e.g. `x-api-key`. Default: `Authorization`, with the scheme `Bearer`, and
    /// `api-key` for Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_header: Option<String>,
    /// The request's field for the token limit: `max_tokens` (default), or `max_completion_tokens` for models that
    /// refuse the former.
    #[serde(default = "default_token_limit")]
    pub token_limit_field: String,
    /// Fields that are not sent, of `temperature`, `top_p`, `seed`, `stop` and `response_format`, for models that refuse
    /// them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit_fields: Vec<String>,
    /// How many prompts are sent in one request to the completions interface when there are several, as
    /// [`AskAll`](crate::AskAll) has them. Default 5, as in the paper's code; 1 for servers that take no lists.
    #[serde(default = "default_prompts_per_request")]
    pub prompts_per_request: usize,
    /// How many requests [`AskAll`](crate::AskAll) makes at once. Default 4.
    #[serde(default = "default_in_flight")]
    pub in_flight: usize,
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
    /// Largest answer that is read, in bytes. Default 64 MiB.
    #[serde(default = "default_max_answer")]
    pub max_answer_bytes: u64,
    /// Address of an HTTP proxy, without a password. Default: none; the environment is not asked.
    #[serde(default)]
    pub proxy: Option<String>,
    /// How fast to ask. Default: as fast as the server answers.
    #[serde(default)]
    pub limits: RateLimits,
    /// How much to use. Default: no limit.
    #[serde(default)]
    pub budget: Budget,
    /// What tokens cost. Default: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// The deployment, for Azure OpenAI. Default: none, the server is no Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<Azure>,
    /// Headers to send with every request, without secrets. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_headers: BTreeMap<String, String>,
    /// Fields to add to every request, e.g. `min_p`, or `chat_template_kwargs` of vLLM. None may be one that is set
    /// otherwise. Default: none.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra_body: Map<String, Value>,
}

/// What Azure OpenAI wants beside the usual: the key goes into the header `api-key`, and the address is
/// `{base_url}/openai/deployments/{deployment}/chat/completions?api-version={api_version}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Azure {
    /// Name of the deployment.
    pub deployment: String,
    /// Version of the interface, e.g. `2024-10-21`.
    pub api_version: String,
}

fn default_token_limit() -> String {
    "max_tokens".to_owned()
}

fn default_prompts_per_request() -> usize {
    5
}

fn default_in_flight() -> usize {
    4
}

fn default_max_answer() -> u64 {
    64 << 20
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
            api_key_file: None,
            api_key_header: None,
            token_limit_field: default_token_limit(),
            omit_fields: Vec::new(),
            prompts_per_request: default_prompts_per_request(),
            in_flight: default_in_flight(),
            timeout_s: default_timeout(),
            connect_timeout_s: default_connect_timeout(),
            max_retries: default_max_retries(),
            backoff_s: default_backoff(),
            backoff_cap_s: default_backoff_cap(),
            max_answer_bytes: default_max_answer(),
            proxy: None,
            limits: RateLimits::default(),
            budget: Budget::default(),
            price: None,
            azure: None,
            extra_headers: BTreeMap::new(),
            extra_body: Map::new(),
        }
    }

    /// The header that carries the key bare, if it is not the usual one.
    pub(crate) fn key_header(&self) -> Option<&str> {
        let azure = self.azure.as_ref().map(|_| "api-key");
        self.api_key_header.as_deref().or(azure)
    }

    /// The address that requests are sent to.
    pub(crate) fn url(&self) -> String {
        let base = self.base_url.trim_end_matches('/');
        let path = self.endpoint.path();
        match &self.azure {
            None => format!("{base}/{path}"),
            Some(Azure {
                deployment,
                api_version,
            }) => {
                format!("{base}/openai/deployments/{deployment}/{path}?api-version={api_version}")
            }
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`LlmError::Config`] names the first field that cannot be used.
    pub fn validate(&self) -> Result<(), LlmError> {
        self.validate_address()?;
        self.validate_request()?;
        self.validate_headers()?;
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
        for (field, count) in [
            ("prompts_per_request", self.prompts_per_request as u64),
            ("in_flight", self.in_flight as u64),
            ("max_answer_bytes", self.max_answer_bytes),
        ] {
            if count == 0 {
                return wrong(field, "must be at least 1");
            }
        }
        for (field, rate) in [
            (
                "limits.requests_per_minute",
                self.limits.requests_per_minute,
            ),
            ("limits.tokens_per_minute", self.limits.tokens_per_minute),
        ] {
            // Hardly more than one in a day: what is less is a slip.
            if rate.is_some_and(|rate| !(rate >= 0.001 && rate.is_finite())) {
                return wrong(field, "must be at least 0.001 and finite");
            }
        }
        let price = self.price.unwrap_or_default();
        for (field, money) in [
            ("price.input_per_million", price.input_per_million),
            ("price.output_per_million", price.output_per_million),
            ("budget.cost", self.budget.cost.unwrap_or_default()),
        ] {
            if !(money >= 0.0 && money.is_finite()) {
                return wrong(field, "must be at least 0 and finite");
            }
        }
        if self.budget.cost.is_some() && self.price.is_none() {
            return wrong("budget.cost", "needs a `price`");
        }
        Ok(())
    }

    fn validate_address(&self) -> Result<(), LlmError> {
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
        if self.proxy.as_ref().is_some_and(|proxy| proxy.contains('@')) {
            return wrong("proxy", "must not hold a user name or password");
        }
        let Some(azure) = &self.azure else {
            return Ok(());
        };
        let plain = |text: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !text.is_empty() && text.chars().all(known)
        };
        for (field, text) in [
            ("azure.deployment", &azure.deployment),
            ("azure.api_version", &azure.api_version),
        ] {
            if !plain(text) {
                return wrong(field, "must be of letters, digits, `-`, `_` and `.`");
            }
        }
        Ok(())
    }

    fn validate_request(&self) -> Result<(), LlmError> {
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
        let limit = self.token_limit_field.as_str();
        if limit != "max_tokens" && OUR_FIELDS.contains(&limit) {
            return wrong("token_limit_field", format!("cannot be `{limit}`"));
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            return wrong("api_key_file", "cannot be set beside `api_key_env`");
        }
        for name in &self.omit_fields {
            if !OPTIONAL_FIELDS.contains(&name.as_str()) {
                let known = OPTIONAL_FIELDS.join(", ");
                return wrong("omit_fields", format!("has `{name}`, expected {known}"));
            }
        }
        for name in self.extra_body.keys() {
            if OUR_FIELDS.contains(&name.as_str()) || *name == self.token_limit_field {
                let reason = format!("has `{name}`, which is set by requests and other settings");
                return wrong("extra_body", reason);
            }
        }
        Ok(())
    }

    fn validate_headers(&self) -> Result<(), LlmError> {
        if let Some(name) = &self.api_key_header {
            let taken = OUR_HEADERS.contains(&name.to_lowercase().as_str());
            if taken || HeaderName::try_from(name).is_err() {
                return wrong("api_key_header", format!("cannot be {name:?}"));
            }
        }
        for (name, value) in &self.extra_headers {
            let lower = name.to_lowercase();
            if HeaderName::try_from(&lower).is_err() {
                return wrong("extra_headers", format!("has {name:?}, which is no name"));
            }
            let reason = if OUR_HEADERS.contains(&lower.as_str()) {
                "which is set by the client"
            } else if SECRET_NAMES.iter().any(|part| lower.contains(part)) {
                "which looks like a secret; see `api_key_header`, `api_key_env` and `api_key_file`"
            } else if HeaderValue::try_from(value).is_err() {
                "whose value has characters that cannot be sent"
            } else {
                continue;
            };
            return wrong("extra_headers", format!("has `{name}`, {reason}"));
        }
        Ok(())
    }
}

fn wrong(field: &'static str, reason: impl Into<String>) -> Result<(), LlmError> {
    Err(LlmError::Config {
        field,
        reason: reason.into(),
    })
}
