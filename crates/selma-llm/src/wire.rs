//! The JSON of the OpenAI API: requests as servers want them, answers as servers send them.
//!
//! Answers are read tolerantly, because every server adds, leaves out and misnames something: unknown fields are
//! ignored, absent ones get their obvious value. Only what leaves no text to work with is an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    ChatRequest, ChatResponse, Choice, FinishReason, LlmError, Message, Part, Role, Usage,
};

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

/// The body of a request. `token_limit` is the name of the field for the token limit.
pub(crate) fn request_body(
    endpoint: Endpoint,
    model: &str,
    token_limit: &str,
    request: &ChatRequest,
) -> Result<Value, LlmError> {
    let mut body = Map::new();
    body.insert("model".to_owned(), model.into());
    match endpoint {
        Endpoint::Chat => {
            let messages: Vec<Value> = request.messages.iter().map(message_json).collect();
            body.insert("messages".to_owned(), messages.into());
        }
        Endpoint::Completions => {
            if request.messages.iter().any(Message::has_image) {
                return Err(LlmError::Unsupported {
                    model: model.to_owned(),
                    what: "images on the completions endpoint".to_owned(),
                });
            }
            body.insert("prompt".to_owned(), request.text().into());
        }
    }
    body.insert("temperature".to_owned(), request.temperature.into());
    body.insert("top_p".to_owned(), request.top_p.into());
    body.insert(token_limit.to_owned(), request.max_tokens.into());
    // What has its default value is left out: some servers refuse fields that they do not know.
    if request.n != 1 {
        body.insert("n".to_owned(), request.n.into());
    }
    if let Some(seed) = request.seed {
        body.insert("seed".to_owned(), seed.into());
    }
    if !request.stop.is_empty() {
        body.insert("stop".to_owned(), request.stop.clone().into());
    }
    Ok(Value::Object(body))
}

fn message_json(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    // A plain string is understood by every server, a list of parts only by those that see.
    if !message.has_image() {
        return json!({"role": role, "content": message.text()});
    }
    let parts: Vec<Value> = message
        .content
        .iter()
        .map(|part| match part {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Image { media_type, data } => {
                let url = format!("data:{media_type};base64,{}", STANDARD.encode(data));
                json!({"type": "image_url", "image_url": {"url": url}})
            }
        })
        .collect();
    json!({"role": role, "content": parts})
}

/// Reads an answer; the error says what is wrong and where.
pub(crate) fn read_response(
    endpoint: Endpoint,
    model: &str,
    body: &Value,
) -> Result<ChatResponse, String> {
    if !body.is_object() {
        return Err(format!("expected an object, found {}", kind(body)));
    }
    // Gateways report errors of the servers behind them with status 200.
    if let Some(message) = error_message(body) {
        return Err(format!("the server reports an error: {message}"));
    }
    let choices = match body.get("choices") {
        Some(Value::Array(choices)) => choices,
        Some(other) => {
            return Err(format!(
                "expected `choices` to be a list, found {}",
                kind(other)
            ));
        }
        None => return Err("field `choices` is missing".to_owned()),
    };
    if choices.is_empty() {
        return Err("`choices` is empty".to_owned());
    }
    let mut choices = choices
        .iter()
        .enumerate()
        .map(|(position, choice)| read_choice(endpoint, position, choice))
        .collect::<Result<Vec<Choice>, String>>()?;
    choices.sort_by_key(|choice| choice.index);
    let name = body.get("model").and_then(Value::as_str);
    Ok(ChatResponse {
        model: name
            .filter(|name| !name.is_empty())
            .unwrap_or(model)
            .to_owned(),
        choices,
        usage: read_usage(body),
    })
}

fn read_choice(endpoint: Endpoint, position: usize, choice: &Value) -> Result<Choice, String> {
    let (field, text) = match endpoint {
        Endpoint::Chat => (
            "message.content",
            choice
                .get("message")
                .and_then(|message| message.get("content")),
        ),
        Endpoint::Completions => ("text", choice.get("text")),
    };
    let wrong = |what: &str| {
        Err(format!(
            "expected `choices[{position}].{field}` to be a text, found {what}"
        ))
    };
    let text = match text {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        // A filtered or empty answer has null here; it must still be a choice to be that.
        Some(Value::Null) => String::new(),
        None if endpoint == Endpoint::Chat
            && choice.get("message").is_some_and(Value::is_object) =>
        {
            String::new()
        }
        Some(other) => return wrong(kind(other)),
        None => return wrong("nothing"),
    };
    let index = choice.get("index").and_then(Value::as_u64);
    let reason = choice.get("finish_reason").and_then(Value::as_str);
    Ok(Choice {
        index: index
            .and_then(|index| usize::try_from(index).ok())
            .unwrap_or(position),
        text,
        finish_reason: FinishReason::from(reason.unwrap_or_default().to_owned()),
    })
}

fn read_usage(body: &Value) -> Option<Usage> {
    let usage = body.get("usage")?;
    let count = |field| usage.get(field).and_then(Value::as_u64);
    let (prompt, completion) = (count("prompt_tokens"), count("completion_tokens"));
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    Some(Usage {
        prompt_tokens: prompt.unwrap_or(0),
        completion_tokens: completion.unwrap_or(0),
    })
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
    use super::*;

    fn chat(body: &Value) -> Result<ChatResponse, String> {
        read_response(Endpoint::Chat, "asked", body)
    }

    #[test]
    fn chat_requests() {
        let request = ChatRequest::new(vec![Message::system("s"), Message::user("u")])
            .with_max_tokens(7)
            .with_temperature(0.5);
        assert_eq!(
            request_body(Endpoint::Chat, "m", "max_completion_tokens", &request).unwrap(),
            json!({
                "model": "m",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                "temperature": 0.5, "top_p": 1.0, "max_completion_tokens": 7,
            })
        );
        let request = request
            .with_n(2)
            .with_seed(3)
            .with_stop(vec!["\n".to_owned()]);
        let body = request_body(Endpoint::Chat, "m", "max_tokens", &request).unwrap();
        assert_eq!(
            (
                &body["n"],
                &body["seed"],
                &body["stop"],
                &body["max_tokens"]
            ),
            (&json!(2), &json!(3), &json!(["\n"]), &json!(7))
        );
    }

    #[test]
    fn images_become_data_uris_or_an_error() {
        let image = Part::Image {
            media_type: "image/png".to_owned(),
            data: vec![1, 2, 3],
        };
        let request = ChatRequest::new(vec![Message::user("what?").with_part(image)]);
        let body = request_body(Endpoint::Chat, "m", "max_tokens", &request).unwrap();
        assert_eq!(
            body["messages"][0]["content"],
            json!([
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}},
            ])
        );
        let error = request_body(Endpoint::Completions, "m", "max_tokens", &request).unwrap_err();
        assert!(matches!(error, LlmError::Unsupported { .. }));
    }

    #[test]
    fn completions_requests_are_plain_text() {
        let request = ChatRequest::new(vec![Message::system("s"), Message::user("u\n")]);
        let body = request_body(Endpoint::Completions, "m", "max_tokens", &request).unwrap();
        assert_eq!(body["prompt"], "s\n\nu\n");
        assert!(body.get("messages").is_none());
    }

    #[test]
    fn a_full_answer() {
        let body = json!({
            "id": "x", "object": "chat.completion", "model": "served", "service_tier": "on_demand",
            "choices": [
                {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "length"},
                {"index": 0, "message": {"content": "a", "reasoning": "r"}, "finish_reason": "stop", "logprobs": null},
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "details": {}},
        });
        let response = chat(&body).unwrap();
        assert_eq!(response.model, "served");
        let texts: Vec<&str> = response
            .choices
            .iter()
            .map(|choice| choice.text.as_str())
            .collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(response.choices[1].finish_reason, FinishReason::Length);
        assert_eq!(response.usage.unwrap().total_tokens(), 7);
    }

    #[test]
    fn odd_answers_are_understood() {
        for (choice, text, reason) in [
            (json!({"message": {"content": "a"}}), "a", ""),
            (
                json!({"message": {"content": "a"}, "finish_reason": ""}),
                "a",
                "",
            ),
            (
                json!({"message": {"content": "a"}, "finish_reason": "eos"}),
                "a",
                "eos",
            ),
            (
                json!({"message": {"content": "a"}, "finish_reason": 7, "index": "0"}),
                "a",
                "",
            ),
            (
                json!({"message": {"content": null}, "finish_reason": "content_filter"}),
                "",
                "content_filter",
            ),
            (json!({"message": {"refusal": "no"}}), "", ""),
            (
                json!({"message": {"content": [{"type": "text", "text": "a"}, {"type": "x"}]}}),
                "a",
                "",
            ),
        ] {
            let response = chat(&json!({"choices": [choice], "error": null, "usage": {}})).unwrap();
            assert_eq!(response.text(), Some(text), "{choice}");
            assert_eq!(
                String::from(response.choices[0].finish_reason.clone()),
                reason
            );
            assert_eq!((response.model.as_str(), response.usage), ("asked", None));
        }
        let body =
            json!({"choices": [{"text": "\n4. a", "index": 0}], "usage": {"prompt_tokens": 2}});
        let response = read_response(Endpoint::Completions, "asked", &body).unwrap();
        assert_eq!(response.text(), Some("\n4. a"));
        assert_eq!(response.usage.unwrap().prompt_tokens, 2);
    }

    #[test]
    fn answers_without_text_are_errors_that_name_the_place() {
        for (body, expected) in [
            (json!([]), "expected an object, found a list"),
            (json!({}), "field `choices` is missing"),
            (
                json!({"choices": "a"}),
                "expected `choices` to be a list, found a text",
            ),
            (json!({"choices": []}), "`choices` is empty"),
            (
                json!({"choices": [{"message": {"content": 7}}]}),
                "expected `choices[0].message.content` to be a text, found a number",
            ),
            (
                json!({"choices": [{"text": "a"}]}),
                "expected `choices[0].message.content` to be a text, found nothing",
            ),
            (
                json!({"error": {"message": "overloaded"}, "choices": []}),
                "the server reports an error: overloaded",
            ),
            (json!({"error": "bad"}), "the server reports an error: bad"),
        ] {
            assert_eq!(chat(&body).unwrap_err(), expected);
        }
    }

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
}
