//! Requests: redirects without the token, and patience with passing failures.

use std::time::{Duration, Instant, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use selma_http::{Hint, bearer, delay, is_passing, is_transient};
use serde_json::Value;
use ureq::Body;
use ureq::http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::url::{Origin, join, shown};
use crate::{HubConfig, HubError, HubEvent, HubObserver};

/// Redirects that are followed in a row.
const MAX_REDIRECTS: usize = 8;
/// Bytes that are read of the answer to a failed request.
const MAX_MESSAGE: u64 = 64 << 10;
/// Longest part of it that an error shows, in characters.
const EXCERPT: usize = 300;
/// Time between two questions whether to go on.
const TICK: Duration = Duration::from_millis(100);

/// Sends requests to the endpoint, and follows where it points.
pub(crate) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    origin: Origin,
    token: Option<SecretString>,
    authorization: Option<HeaderValue>,
    max_retries: u32,
    backoff: Duration,
    backoff_cap: Duration,
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// Below HTTP, or in the midst of a body.
    Transport(ureq::Error),
    /// A status that is no success.
    Status {
        status: u16,
        gated: bool,
        message: String,
        hint: Hint,
        /// Whether the endpoint itself said so, and not the server that it points to.
        by_endpoint: bool,
    },
    /// Trying again would not help.
    Final(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// A failed attempt, and whether it came further than the one before.
pub(crate) struct Attempt {
    pub(crate) failure: Failure,
    pub(crate) progressed: bool,
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            progressed: false,
        }
    }
}

impl From<HubError> for Attempt {
    fn from(error: HubError) -> Self {
        Failure::Final(error).into()
    }
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self, HubError> {
        config.validate()?;
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, where it is decided who gets the token.
            .max_redirects(0)
            .timeout_connect(seconds(config.connect_timeout_s))
            .timeout_per_read(seconds(config.stall_timeout_s))
            .user_agent(concat!("selma-hub/", env!("CARGO_PKG_VERSION")))
            // A compressed body would have another length, and no ranges.
            .accept_encoding("identity")
            .proxy(config.proxy.clone())
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: config.endpoint.trim_end_matches('/').to_owned(),
            origin: config.origin()?,
            token: config.token.clone(),
            authorization: config.token.as_ref().map(bearer).transpose()?,
            max_retries: config.max_retries,
            backoff: Duration::from_secs_f64(config.backoff_s),
            backoff_cap: Duration::from_secs_f64(config.backoff_cap_s),
        })
    }

    /// The address of a path below the endpoint.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// One attempt to get the content of an address, from a byte on. An answer of status 416 is handed back like a success.
    pub(crate) fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Failure> {
        self.follow(&Method::GET, url, from)
    }

    /// One attempt to get the endpoint's headers on an address. Redirects are followed only within the endpoint, since the file's
    /// identity stands in what the endpoint itself answers.
    pub(crate) fn head(&self, url: &str) -> Result<Response<Body>, Failure> {
        self.follow(&Method::HEAD, url, None)
    }

    fn follow(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method, &at, from)?;
            let Some(next) = next(&at, &response)? else {
                return self.checked(&at, response);
            };
            if method == Method::HEAD && !self.is_endpoint(&next) {
                return Ok(response);
            }
            at = next;
        }
        Err(Failure::Final(HubError::Redirect {
            url: shown(url).to_owned(),
            location: shown(&at).to_owned(),
            reason: "after too many redirects",
        }))
    }

    fn is_endpoint(&self, url: &str) -> bool {
        Origin::of(url).as_ref() == Some(&self.origin)
    }

    fn send(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(authorization) = &self.authorization
            && self.is_endpoint(url)
        {
            request = request.header("authorization", authorization);
        }
        let request = request.body(()).map_err(|error| HubError::Answer {
            url: shown(url).to_owned(),
            reason: format!("the address cannot be used ({error})"),
        })?;
        self.agent.run(request).map_err(Failure::Transport)
    }

    fn checked(&self, at: &str, mut response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let hint = Hint::read(|name| header(&response, name), SystemTime::now());
        let gated = header(&response, "x-error-code") == Some("GatedRepo");
        let message = match header(&response, "x-error-message") {
            Some(message) => message.to_owned(),
            None => {
                let body = response.body_mut().with_config().limit(MAX_MESSAGE);
                message(&body.read_to_string().unwrap_or_default())
            }
        };
        Err(Failure::Status {
            status: status.as_u16(),
            gated,
            message: self.excerpt(&message),
            hint,
            by_endpoint: self.is_endpoint(at),
        })
    }

    /// The beginning of a server's text on one line, without the token.
    fn excerpt(&self, text: &str) -> String {
        let text = match self
            .token
            .as_ref()
            .map(|token| token.expose_secret().trim())
        {
            Some(token) if !token.is_empty() => text.replace(token, "[token]"),
            _ => text.to_owned(),
        };
        let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            return "no reason given".to_owned();
        }
        if let Some((end, _)) = words.char_indices().nth(EXCERPT) {
            words.truncate(end);
            words.push('…');
        }
        words
    }

    /// Tries until it works, the failure is final, or there were too many in a row without any progress.
    pub(crate) fn persist<T>(
        &self,
        url: &str,
        what: &str,
        observer: &mut HubObserver<'_>,
        mut attempt: impl FnMut(&mut HubObserver<'_>) -> Result<T, Attempt>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            let Attempt {
                failure,
                progressed,
            } = match attempt(observer) {
                Ok(value) => return Ok(value),
                Err(attempt) => attempt,
            };
            if progressed {
                failures = 0;
            }
            let retry = failures;
            failures += 1;
            let wait = (retry < self.max_retries)
                .then(|| self.delay(&failure, retry))
                .flatten();
            let error = failure.into_error(url, failures);
            let Some(wait) = wait else {
                return Err(error);
            };
            let reason = error.to_string();
            let reason = &reason;
            tell(observer, HubEvent::Retry { what, reason, wait })?;
            pause(wait, what, observer)?;
        }
    }

    fn delay(&self, failure: &Failure, retry: u32) -> Option<Duration> {
        let hint = match failure {
            Failure::Final(_) => return None,
            Failure::Transport(error) if !is_passing(error) => return None,
            Failure::Transport(_) => Hint::default(),
            Failure::Status {
                status,
                hint,
                by_endpoint,
                ..
            } => {
                // The signature of an address elsewhere runs out; the endpoint gives a fresh one.
                let expired = !by_endpoint && matches!(status, 401 | 403);
                let passing = || expired || is_transient(*status);
                if !hint.should.unwrap_or_else(passing) {
                    return None;
                }
                *hint
            }
        };
        delay(retry, hint.after, self.backoff, self.backoff_cap)
    }
}

impl Failure {
    fn into_error(self, url: &str, attempts: u32) -> HubError {
        let url = shown(url).to_owned();
        match self {
            Self::Final(error) => error,
            Self::Transport(source) => HubError::Transport {
                url,
                attempts,
                source: Box::new(source),
            },
            Self::Status {
                status,
                gated,
                message,
                by_endpoint,
                ..
            } => match status {
                401 | 403 if gated => HubError::Gated {
                    url,
                    status,
                    message,
                },
                401 | 403 if by_endpoint => HubError::Denied {
                    url,
                    status,
                    message,
                },
                404 => HubError::NotFound { url, message },
                _ => HubError::Status {
                    url,
                    status,
                    attempts,
                    message,
                },
            },
        }
    }
}

/// Tells the observer, and stops if it wants to.
pub(crate) fn tell(observer: &mut HubObserver<'_>, event: HubEvent<'_>) -> Result<(), HubError> {
    match observer(event) {
        std::ops::ControlFlow::Continue(()) => Ok(()),
        std::ops::ControlFlow::Break(()) => Err(HubError::Cancelled),
    }
}

/// Waits, and asks the observer now and then whether to go on.
pub(crate) fn pause(
    wait: Duration,
    what: &str,
    observer: &mut HubObserver<'_>,
) -> Result<(), HubError> {
    let end = Instant::now() + wait;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
        tell(observer, HubEvent::Waiting { what })?;
    }
}

/// Where a redirect leads; `None` if it is none.
fn next(at: &str, response: &Response<Body>) -> Result<Option<String>, Failure> {
    let status = response.status();
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let location = header(response, "location").unwrap_or_default();
    let wrong = |reason| HubError::Redirect {
        url: shown(at).to_owned(),
        location: shown(location).to_owned(),
        reason,
    };
    let next = join(at, location).ok_or_else(|| wrong("which is no address"))?;
    match (Origin::of(at), Origin::of(&next)) {
        (Some(here), Some(there)) if here.is_downgraded_by(&there) => {
            Err(wrong("which is not encrypted").into())
        }
        _ => Ok(Some(next)),
    }
}

/// A header's text.
pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// What the Hub writes into `error`, or the text as it is.
fn message(body: &str) -> String {
    let parsed = serde_json::from_str::<Value>(body).unwrap_or_default();
    match parsed.get("error").and_then(Value::as_str) {
        Some(error) => error.to_owned(),
        None => body.to_owned(),
    }
}
