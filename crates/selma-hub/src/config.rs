//! Where models come from and where they are kept.

use std::path::PathBuf;

use secrecy::SecretString;
use ureq::Proxy;

use crate::HubError;
use crate::url::Origin;

/// Settings of a [`Hub`](crate::Hub). The library reads none of them from the environment; a program may.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The server's address. Default `https://huggingface.co`.
    pub endpoint: String,
    /// Folder of the cache, which Python's `huggingface_hub` shares: the one that holds `models--OWNER--NAME`.
    pub cache: PathBuf,
    /// Whether to use nothing but the cache. Default: no.
    pub offline: bool,
    /// A token, for models that are not open to all. It is sent to `endpoint` and nowhere else.
    pub token: Option<SecretString>,
    /// A proxy. Default: none.
    pub proxy: Option<Proxy>,
    /// Seconds to wait for a connection. Default 10.
    pub connect_timeout_s: f64,
    /// Seconds without a byte after which a connection counts as broken. Default 30.
    pub stall_timeout_s: f64,
    /// How many times in a row a request may fail for a passing reason. A download that has come further starts counting anew. Default 5.
    pub max_retries: u32,
    /// Seconds before the first retry; each further one waits twice as long. Default 1.
    pub backoff_s: f64,
    /// Longest such wait in seconds. Default 30.
    pub backoff_cap_s: f64,
}

impl HubConfig {
    /// The defaults, for a folder of the cache.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            cache: cache.into(),
            offline: false,
            token: None,
            proxy: None,
            connect_timeout_s: 10.0,
            stall_timeout_s: 30.0,
            max_retries: 5,
            backoff_s: 1.0,
            backoff_cap_s: 30.0,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`HubError::Config`] names the first field that cannot be used.
    pub fn validate(&self) -> Result<(), HubError> {
        self.origin()?;
        for (field, seconds) in [
            ("connect_timeout_s", self.connect_timeout_s),
            ("stall_timeout_s", self.stall_timeout_s),
            ("backoff_s", self.backoff_s),
            ("backoff_cap_s", self.backoff_cap_s),
        ] {
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                let reason = "must be greater than 0 and at most 86400 seconds".to_owned();
                return Err(HubError::Config { field, reason });
            }
        }
        Ok(())
    }

    /// Scheme, host and port of the endpoint.
    pub(crate) fn origin(&self) -> Result<Origin, HubError> {
        let wrong = |reason: &str| HubError::Config {
            field: "endpoint",
            reason: reason.to_owned(),
        };
        // The address is shown in errors, so it must hold no secret; it is not shown here for the same reason.
        if self.endpoint.contains('@') {
            return Err(wrong("must not hold a user name or password"));
        }
        if self.endpoint.contains(['?', '#']) {
            return Err(wrong("must not hold a query or fragment"));
        }
        Origin::of(&self.endpoint)
            .ok_or_else(|| wrong("must begin with http:// or https:// and a host"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let config = |endpoint: &str| HubConfig {
            endpoint: endpoint.to_owned(),
            ..HubConfig::new("cache")
        };
        config("http://127.0.0.1:8000/mirror").validate().unwrap();
        for endpoint in [
            "",
            "huggingface.co",
            "ftp://huggingface.co",
            "https://",
            "https://user:secret@host",
            "https://host?token=secret",
        ] {
            let error = config(endpoint).validate().unwrap_err().to_string();
            assert!(error.starts_with("setting endpoint: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let mut never = HubConfig::new("cache");
        never.stall_timeout_s = 0.0;
        let error = never.validate().unwrap_err().to_string();
        assert!(error.starts_with("setting stall_timeout_s: "), "{error}");
    }

    #[test]
    fn the_token_is_not_shown() {
        let mut config = HubConfig::new("cache");
        config.token = Some(SecretString::from("hf_secret"));
        assert!(!format!("{config:?}").contains("hf_secret"));
    }
}
