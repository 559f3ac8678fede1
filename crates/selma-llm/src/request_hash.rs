//! What tells one request from another: [`RequestHash`].

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{ChatModel, ChatRequest, LlmError};

/// SHA-256 of a request's content, of the model's name and settings and of the request's number in its run, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestHash(String);

impl RequestHash {
    /// The hash of the `index`-th request of a run to this model.
    ///
    /// # Errors
    /// [`LlmError::Config`] if the request has no JSON form, i.e. a temperature or `top_p` that is no number.
    pub fn new(model: &dyn ChatModel, index: u64, request: &ChatRequest) -> Result<Self, LlmError> {
        /// The version changes when requests of old and new code must not be taken for one another.
        #[derive(Serialize)]
        struct Content<'a> {
            version: u32,
            model: &'a str,
            index: u64,
            request: &'a ChatRequest,
            #[serde(skip_serializing_if = "Option::is_none")]
            settings: Option<&'a Value>,
        }
        if !request.temperature.is_finite() || !request.top_p.is_finite() {
            return Err(LlmError::Config {
                field: "temperature",
                reason: "and `top_p` must be finite".to_owned(),
            });
        }
        let content = Content {
            version: 1,
            model: model.name(),
            index,
            request,
            settings: model.settings(),
        };
        let bytes = serde_json::to_vec(&content).map_err(|source| LlmError::Model {
            model: model.name().to_owned(),
            source: source.into(),
        })?;
        Ok(Self(hex::encode(Sha256::digest(bytes))))
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Scripted, ask, no_more};

    fn named(name: &'static str, settings: Option<Value>) -> Scripted {
        Scripted::new(name, |_, _| Err(no_more())).with_settings(settings)
    }

    #[test]
    fn a_hash_tells_requests_apart_and_stays_the_same() {
        let hash = |model, index, request: &ChatRequest| {
            RequestHash::new(&named(model, None), index, request).unwrap()
        };
        let base = hash("m", 0, &ask("a"));
        for other in [
            hash("n", 0, &ask("a")),
            hash("m", 1, &ask("a")),
            hash("m", 0, &ask("b")),
            hash("m", 0, &ask("a").with_seed(1)),
            hash("m", 0, &ask("a").with_temperature(0.5)),
            hash("m", 0, &ask("a").with_logprobs(0)),
            hash("m", 0, &ask("a").with_json_schema("form", json!(true))),
            RequestHash::new(&named("m", Some(json!({"min_p": 0.1}))), 0, &ask("a")).unwrap(),
        ] {
            assert_ne!(base, other);
        }
        // Journals of earlier versions must still be understood; a change here breaks every one of them.
        assert_eq!(
            base.as_str(),
            "fc7ec440f123cc0add571983fa4a8cc1a79c3f358f3570cfc248eb597272c177"
        );
        let odd = ask("a").with_top_p(f64::NAN);
        assert!(RequestHash::new(&named("m", None), 0, &odd).is_err());
    }
}
