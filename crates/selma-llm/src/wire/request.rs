//! Requests as servers want them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Endpoint;
use crate::{ChatRequest, LlmError, Message, Part, Role};

/// Fields that are set by requests and settings, and that extra ones must not replace; the field of the token limit comes
/// to them. Answers are read whole, so `stream` is ours as well.
pub(crate) const OUR_FIELDS: [&str; 13] = [
    "model",
    "messages",
    "prompt",
    "temperature",
    "top_p",
    "max_tokens",
    "n",
    "seed",
    "stop",
    "response_format",
    "logprobs",
    "top_logprobs",
    "stream",
];

/// Fields that a request can do without, for servers that refuse them.
pub(crate) const OPTIONAL_FIELDS: [&str; 5] =
    ["temperature", "top_p", "seed", "stop", "response_format"];

/// What a client's settings say about the body of every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: &'a str,
    /// Name of the field for the token limit.
    pub(crate) token_limit: &'a str,
    /// Fields of [`OPTIONAL_FIELDS`] that are left out.
    pub(crate) omit: &'a [String],
    /// Fields to add; none is one of [`OUR_FIELDS`].
    pub(crate) extra: &'a Map<String, Value>,
}

/// The body that asks for all `requests` at once. They differ in nothing but their prompts, and are several only on the
/// completions endpoint.
pub(crate) fn request_body(
    fields: Fields<'_>,
    requests: &[&ChatRequest],
) -> Result<Value, LlmError> {
    let unsupported = |what: &str| LlmError::Unsupported {
        model: fields.model.to_owned(),
        what: what.to_owned(),
    };
    let Some(request) = requests.first() else {
        return Err(unsupported("a request for nothing"));
    };
    let mut body = Map::new();
    body.insert("model".to_owned(), fields.model.into());
    match fields.endpoint {
        Endpoint::Chat => {
            if requests.len() > 1 {
                return Err(unsupported("several conversations in one request"));
            }
            let messages: Vec<Value> = request.messages.iter().map(message_json).collect();
            body.insert("messages".to_owned(), messages.into());
        }
        Endpoint::Completions => {
            let messages = requests.iter().flat_map(|request| &request.messages);
            if messages.into_iter().any(Message::has_image) {
                return Err(unsupported("images on the completions endpoint"));
            }
            let prompt = match requests {
                // A plain string is understood by every server.
                [request] => request.text().into(),
                _ => requests.iter().map(|request| request.text()).collect(),
            };
            body.insert("prompt".to_owned(), prompt);
        }
    }
    body.insert("temperature".to_owned(), request.temperature.into());
    body.insert("top_p".to_owned(), request.top_p.into());
    body.insert(fields.token_limit.to_owned(), request.max_tokens.into());
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
    if let Some(form) = &request.json_schema {
        let form = json!({"name": form.name, "strict": form.strict, "schema": form.schema});
        let format = json!({"type": "json_schema", "json_schema": form});
        body.insert("response_format".to_owned(), format);
    }
    if let Some(top) = request.top_logprobs {
        match fields.endpoint {
            Endpoint::Chat => {
                body.insert("logprobs".to_owned(), true.into());
                body.insert("top_logprobs".to_owned(), top.into());
            }
            Endpoint::Completions => {
                body.insert("logprobs".to_owned(), top.into());
            }
        }
    }
    // The order of the others stays as it is.
    body.retain(|field, _| !fields.omit.contains(field));
    body.extend(fields.extra.clone());
    Ok(Value::Object(body))
}

/// Whether two requests can be sent as two prompts of one.
pub(crate) fn same_but_prompt(a: &ChatRequest, b: &ChatRequest) -> bool {
    // Taken apart in full, so that a field to come is not forgotten here.
    let ChatRequest {
        messages: _,
        temperature,
        top_p,
        max_tokens,
        seed,
        stop,
        n,
        json_schema,
        top_logprobs,
    } = a;
    *temperature == b.temperature
        && *top_p == b.top_p
        && *max_tokens == b.max_tokens
        && *seed == b.seed
        && *stop == b.stop
        && *n == b.n
        && *json_schema == b.json_schema
        && *top_logprobs == b.top_logprobs
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

#[cfg(test)]
mod tests {
    use super::*;

    fn body(endpoint: Endpoint, requests: &[&ChatRequest]) -> Result<Value, LlmError> {
        let fields = Fields {
            endpoint,
            model: "m",
            token_limit: "max_tokens",
            omit: &[],
            extra: &Map::new(),
        };
        request_body(fields, requests)
    }

    #[test]
    fn chat_requests() {
        let request = ChatRequest::new(vec![Message::system("s"), Message::user("u")])
            .with_max_tokens(7)
            .with_temperature(0.5);
        assert_eq!(
            body(Endpoint::Chat, &[&request]).unwrap(),
            json!({
                "model": "m",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                "temperature": 0.5, "top_p": 1.0, "max_tokens": 7,
            })
        );
        let request = request
            .with_n(2)
            .with_seed(3)
            .with_stop(vec!["\n".to_owned()]);
        let body = body(Endpoint::Chat, &[&request]).unwrap();
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
        let chat = body(Endpoint::Chat, &[&request]).unwrap();
        assert_eq!(
            chat["messages"][0]["content"],
            json!([
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}},
            ])
        );
        let error = body(Endpoint::Completions, &[&request]).unwrap_err();
        assert!(matches!(error, LlmError::Unsupported { .. }));
    }

    #[test]
    fn completions_requests_are_plain_text() {
        let request = ChatRequest::new(vec![Message::system("s"), Message::user("u\n")]);
        let body = body(Endpoint::Completions, &[&request]).unwrap();
        assert_eq!(body["prompt"], "s\n\nu\n");
        assert!(body.get("messages").is_none());
    }

    #[test]
    fn several_prompts_are_a_list() {
        let ask = |text: &str| ChatRequest::new(vec![Message::user(text)]);
        let (a, b) = (ask("a"), ask("b"));
        assert!(same_but_prompt(&a, &b) && !same_but_prompt(&a, &b.clone().with_seed(1)));
        let both = body(Endpoint::Completions, &[&a, &b]).unwrap();
        assert_eq!(both["prompt"], json!(["a", "b"]));
        for (endpoint, requests) in [(Endpoint::Chat, vec![&a, &b]), (Endpoint::Chat, vec![])] {
            let error = body(endpoint, &requests).unwrap_err();
            assert!(matches!(error, LlmError::Unsupported { .. }), "{error}");
        }
    }

    #[test]
    fn schemas_and_log_probabilities() {
        let request = ChatRequest::new(vec![Message::user("u")])
            .with_logprobs(5)
            .with_json_schema("form", json!({"type": "object"}));
        let chat = body(Endpoint::Chat, &[&request]).unwrap();
        assert_eq!(
            chat["response_format"],
            json!({"type": "json_schema", "json_schema": {
                "name": "form", "strict": true, "schema": {"type": "object"}}})
        );
        assert_eq!(
            (&chat["logprobs"], &chat["top_logprobs"]),
            (&json!(true), &json!(5))
        );
        let completions = body(Endpoint::Completions, &[&request]).unwrap();
        assert_eq!(completions["logprobs"], 5);
        assert!(completions.get("top_logprobs").is_none());
    }

    #[test]
    fn fields_are_left_out_and_added() {
        let extra = json!({"min_p": 0.1, "chat_template_kwargs": {"enable_thinking": false}});
        let fields = Fields {
            endpoint: Endpoint::Chat,
            model: "m",
            token_limit: "max_completion_tokens",
            omit: &["temperature".to_owned(), "top_p".to_owned()],
            extra: extra.as_object().unwrap(),
        };
        let request = ChatRequest::new(vec![Message::user("u")]);
        assert_eq!(
            request_body(fields, &[&request]).unwrap(),
            json!({
                "model": "m", "messages": [{"role": "user", "content": "u"}],
                "max_completion_tokens": 1024,
                "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": false},
            })
        );
    }
}
