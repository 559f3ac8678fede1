//! The API key, and keeping it out of everything that is shown or written.

use std::path::Path;
use std::{fmt, fs, mem};

use secrecy::{ExposeSecret as _, SecretString};
use selma_durable::DurableError;
use selma_http::{bare, bearer};
use serde_json::Value;
use ureq::http::HeaderValue;

use crate::{LlmError, OpenAiConfig};

/// Keys shorter than this are words such as `none` that local servers are given, and stay in answers.
const SECRET_LEN: usize = 12;
/// What stands in the key's place.
const REDACTED: &str = "[key]";

/// The key that a client sends, or none.
pub(crate) struct Key {
    secret: Option<SecretString>,
    /// Name and value of the header that carries it.
    header: Option<(String, HeaderValue)>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

/// The key from the variable or file that the settings name, if they name one.
pub(crate) fn read_key(config: &OpenAiConfig) -> Result<Option<SecretString>, LlmError> {
    let key = match (&config.api_key_env, &config.api_key_file) {
        (None, None) => return Ok(None),
        (Some(variable), _) => match std::env::var(variable) {
            Ok(key) if !key.trim().is_empty() => key,
            _ => {
                return Err(LlmError::KeyMissing {
                    variable: variable.clone(),
                });
            }
        },
        (None, Some(path)) => read_file(path)?,
    };
    Ok(Some(SecretString::from(key)))
}

fn read_file(path: &Path) -> Result<String, LlmError> {
    let text = fs::read_to_string(path).map_err(DurableError::io("read", path))?;
    let key = text.trim();
    if key.is_empty() || key.contains(['\n', '\r']) {
        return Err(LlmError::KeyFile { path: path.into() });
    }
    Ok(key.to_owned())
}

impl Key {
    /// A key that goes as it is into the header of this name, or into `Authorization` as a bearer's.
    pub(crate) fn new(
        secret: Option<SecretString>,
        header: Option<&str>,
    ) -> Result<Self, LlmError> {
        let header = secret.as_ref().map(|secret| match header {
            Some(name) => bare(secret).map(|value| (name.to_owned(), value)),
            None => bearer(secret).map(|value| ("authorization".to_owned(), value)),
        });
        Ok(Self {
            header: header.transpose().map_err(|_| LlmError::KeyInvalid)?,
            secret,
        })
    }

    pub(crate) fn header(&self) -> Option<&(String, HeaderValue)> {
        self.header.as_ref()
    }

    fn text(&self) -> Option<&str> {
        let key = self.secret.as_ref()?.expose_secret().trim();
        (!key.is_empty()).then_some(key)
    }

    /// A text without the key.
    pub(crate) fn redact(&self, text: &str) -> String {
        match self.text() {
            Some(key) => text.replace(key, REDACTED),
            None => text.to_owned(),
        }
    }

    /// Takes the key out of every text of an answer, however the JSON spelt it, because answers are written to journals.
    /// Says whether there was one.
    pub(crate) fn redact_json(&self, value: &mut Value) -> bool {
        match self.text() {
            Some(key) if key.len() >= SECRET_LEN => redact(value, key),
            _ => false,
        }
    }
}

fn redact(value: &mut Value, key: &str) -> bool {
    match value {
        Value::String(text) if text.contains(key) => {
            *text = text.replace(key, REDACTED);
            true
        }
        Value::Array(items) => {
            let found = items.iter_mut().map(|item| redact(item, key));
            found.fold(false, |any, found| any | found)
        }
        Value::Object(fields) => {
            let mut any = fields.keys().any(|name| name.contains(key));
            if any {
                let renamed = mem::take(fields).into_iter();
                fields.extend(renamed.map(|(name, value)| (name.replace(key, REDACTED), value)));
            }
            for field in fields.values_mut() {
                any |= redact(field, key);
            }
            any
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(secret: &str) -> Key {
        Key::new(Some(SecretString::from(secret)), None).unwrap()
    }

    #[test]
    fn every_spelling_is_taken_out() {
        let key = key(" sk-\"0123456789/\n");
        let json =
            r#"{"a":["x sk-\u00220123456789\/ y",1],"sk-\"0123456789/":{"b":"sk-\"0123456789/"}}"#;
        let mut value: Value = serde_json::from_str(json).unwrap();
        assert!(key.redact_json(&mut value));
        assert_eq!(
            value,
            json!({"a": ["x [key] y", 1], "[key]": {"b": "[key]"}})
        );
        assert!(!key.redact_json(&mut value));
        assert_eq!(key.redact("<sk-\"0123456789/>"), "<[key]>");
        assert!(!format!("{key:?}").contains("0123"));
    }

    #[test]
    fn a_placeholder_stays() {
        let mut value = json!("a dog");
        assert!(!key("dog").redact_json(&mut value));
        assert_eq!(value, json!("a dog"));
        let none = Key::new(None, None).unwrap();
        assert!(!none.redact_json(&mut value) && none.header().is_none());
        assert_eq!(key(" ").redact("a b"), "a b");
    }

    #[test]
    fn the_header_has_a_scheme_or_a_name() {
        let (name, value) = key("secret").header.unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Bearer secret")
        );
        let secret = Some(SecretString::from("secret"));
        let (name, value) = Key::new(secret, Some("api-key")).unwrap().header.unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("api-key", "secret")
        );
    }

    #[test]
    fn keys_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut config = OpenAiConfig::new("http://h", "m");
        config.api_key_file = Some(path.clone());
        let error = read_key(&config).unwrap_err().to_string();
        let start = format!("cannot read {}: No such file", path.display());
        assert!(error.starts_with(&start), "{error}");
        for bad in ["", " \n", "sk-one\nsk-two"] {
            fs::write(&path, bad).unwrap();
            let error = read_key(&config).unwrap_err().to_string();
            let expected = format!("{} holds no API key on a single line", path.display());
            assert_eq!(error, expected);
        }
        fs::write(&path, "sk-one\r\n").unwrap();
        let key = read_key(&config).unwrap().unwrap();
        assert_eq!(key.expose_secret(), "sk-one");
    }
}
