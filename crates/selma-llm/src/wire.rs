//! The JSON of the OpenAI API: requests as servers want them, answers as servers send them.

mod logprobs;
mod request;
mod response;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use request::{Fields, OPTIONAL_FIELDS, OUR_FIELDS, request_body, same_but_prompt};
pub(crate) use response::{check_answer, read_responses, read_usage};

/// Longest part of an answer that an error shows, in characters.
const EXCERPT: usize = 300;

/// Which of the two interfaces of an OpenAI-compatible server is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST {base}/chat/completions`: for instruction-tuned models; the server lays the messages out.
    #[default]
    Chat,
    /// `POST {base}/completions`: the text is continued as it is, as SELMA did with gpt-3.5-turbo-instruct.
    Completions,
}

impl Endpoint {
    /// The path below the base address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
        }
    }
}

/// The message of an error body: `{"error": {"message": ..}}` or `{"error": ".."}` and its relatives.
pub(crate) fn error_message(body: &Value) -> Option<String> {
    let error = body.get("error").filter(|error| !error.is_null())?;
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .or_else(|| error.as_str());
    Some(message.map_or_else(|| error.to_string(), str::to_owned))
}

/// The HTTP status that an error body gives as the code of its error.
pub(crate) fn error_status(body: &Value) -> Option<u16> {
    let code = body.get("error")?.get("code")?.as_u64()?;
    u16::try_from(code)
        .ok()
        .filter(|code| (400..600).contains(code))
}

/// Whether an error body says that the account's quota is used up, which no waiting cures.
pub(crate) fn is_quota_error(body: &Value) -> bool {
    let Some(error) = body.get("error") else {
        return false;
    };
    ["code", "type"].iter().any(|field| {
        let value = error.get(field).and_then(Value::as_str);
        matches!(
            value,
            Some("insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active")
        )
    })
}

/// The beginning of a server's text on one line.
pub(crate) fn excerpt(text: &str) -> String {
    // White space may shrink, and a page may be large: what is shown needs no more than this.
    let end = text.char_indices().nth(EXCERPT * 20).map(|(end, _)| end);
    let text = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(EXCERPT) {
        words.truncate(end);
        words.push('…');
    }
    words
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quota_errors_are_told_from_rate_limits() {
        assert!(is_quota_error(
            &json!({"error": {"code": "insufficient_quota"}})
        ));
        assert!(is_quota_error(
            &json!({"error": {"type": "insufficient_quota", "code": null}})
        ));
        assert!(!is_quota_error(
            &json!({"error": {"code": "rate_limit_exceeded"}})
        ));
        assert!(!is_quota_error(&json!({"detail": "slow down"})));
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(" a\n\tb  c "), "a b c");
        let long = excerpt(&"ä ".repeat(1_000_000));
        assert_eq!(long.chars().count(), EXCERPT + 1);
        assert!(long.ends_with('…'));
    }
}
