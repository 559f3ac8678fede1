//! Answers as JSON of a given form: [`complete_json`].

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

use crate::wire::excerpt;
use crate::{ChatModel, ChatRequest, ChatResponse, Journal, JsonSchema, LlmError, Message, Usage};

/// Places in an answer where JSON is looked for, so that a long text full of brackets is given up.
const MAX_STARTS: usize = 200;

/// What [`complete_json`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonAnswer<T> {
    /// The value.
    pub value: T,
    /// Whether the model had to be asked a second time.
    pub repaired: bool,
    /// Tokens of both requests, as far as the model counts them.
    pub usage: Usage,
}

/// Asks for JSON of the form that the request gives by [`ChatRequest::with_json_schema`].
///
/// Whatever the server claims, the answer is checked here: against the schema, and by reading it as a `T`
/// ([`Value`] takes all that follows the schema). JSON is found in fences and between other words. If there is none that
/// fits, the model is shown its answer with what is wrong, and asked once more. With a journal, both requests are
/// recorded and answered as the `index`-th of the run.
///
/// # Errors
/// [`LlmError::Config`] for a request without a schema, [`LlmError::Schema`] for a schema that says more than can be
/// checked, [`LlmError::Json`] if the second answer does not fit either, else those of model and journal.
pub fn complete_json<T: DeserializeOwned>(
    model: &dyn ChatModel,
    mut journal: Option<(&mut Journal, u64)>,
    request: &ChatRequest,
) -> Result<JsonAnswer<T>, LlmError> {
    let Some(schema) = &request.json_schema else {
        return Err(LlmError::Config {
            field: "json_schema",
            reason: "is missing in the request".to_owned(),
        });
    };
    schema.validate()?;
    let mut ask = |request: &ChatRequest| match &mut journal {
        Some((journal, index)) => Ok(journal.complete(model, *index, request)?.0),
        None => model.complete(request),
    };
    let first = ask(request)?;
    let mut usage = first.usage.unwrap_or_default();
    let reason = match read(&first, schema) {
        Ok(value) => {
            return Ok(JsonAnswer {
                value,
                repaired: false,
                usage,
            });
        }
        Err(reason) => reason,
    };
    let mut again = request.clone();
    again.messages.extend([
        Message::assistant(first.text().unwrap_or_default()),
        Message::user(format!(
            "This cannot be used: {reason}. Answer again with nothing but JSON that follows this schema:\n{}",
            schema.schema
        )),
    ]);
    let second = ask(&again)?;
    usage += second.usage.unwrap_or_default();
    match read(&second, schema) {
        Ok(value) => Ok(JsonAnswer {
            value,
            repaired: true,
            usage,
        }),
        Err(reason) => Err(LlmError::Json {
            model: model.name().to_owned(),
            schema: schema.name.clone(),
            reason,
            excerpt: excerpt(second.text().unwrap_or_default()),
        }),
    }
}

/// The first value in the answer that fits; else what is wrong with the first one there is.
fn read<T: DeserializeOwned>(response: &ChatResponse, schema: &JsonSchema) -> Result<T, String> {
    let text = response.text().unwrap_or_default();
    let mut reason = None;
    for value in values(text) {
        let fitting = match schema.check(&value) {
            Ok(()) => T::deserialize(value).map_err(|error| error.to_string()),
            Err(violation) => Err(violation.to_string()),
        };
        match fitting {
            Ok(value) => return Ok(value),
            Err(found) => reason = reason.or(Some(found)),
        }
    }
    Err(
        reason.unwrap_or_else(|| match serde_json::from_str::<Value>(text.trim()) {
            Err(error) if !text.trim().is_empty() => format!("it is not JSON ({error})"),
            _ => "it is empty".to_owned(),
        }),
    )
}

/// The text as a whole if it is JSON, else the objects and lists in it, one after the other.
fn values(text: &str) -> Vec<Value> {
    if let Ok(value) = serde_json::from_str(text.trim()) {
        return vec![value];
    }
    let mut values = Vec::new();
    let mut rest = text;
    for _ in 0..MAX_STARTS {
        let Some(start) = rest.find(['{', '[']) else {
            break;
        };
        rest = rest.get(start..).unwrap_or_default();
        let mut stream = Deserializer::from_str(rest).into_iter::<Value>();
        let end = match stream.next() {
            Some(Ok(value)) => {
                values.push(value);
                stream.byte_offset()
            }
            // What begins here is something else; the next bracket may be the one.
            _ => 1,
        };
        rest = rest.get(end..).unwrap_or_default();
    }
    values
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::testing::Scripted;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Tuple {
        object: String,
        count: u8,
    }

    fn request() -> ChatRequest {
        ChatRequest::new(vec![Message::user("What is there?")]).with_json_schema(
            "tuple",
            json!({
                "type": "object",
                "properties": {"object": {"type": "string"}, "count": {"type": "integer"}},
                "required": ["object", "count"],
                "additionalProperties": false,
            }),
        )
    }

    #[test]
    fn json_is_found_wherever_it_is() {
        for answer in [
            r#" {"object": "dog", "count": 2} "#,
            "Sure! Here it is:\n```json\n{\"object\": \"dog\",\n \"count\": 2}\n```\nAnything else?",
            "<think>a {list} like [1, 2] or {\"object\": 1}?</think>{\"object\":\"dog\",\"count\":2}",
            "The set {dogs} is {\"object\":\"dog\",\"count\":2} {\"object\":\"cat\",\"count\":1}",
        ] {
            let model = Scripted::saying(&[answer]);
            let found = complete_json::<Tuple>(&model, None, &request()).unwrap();
            let object = "dog".to_owned();
            assert_eq!(found.value, Tuple { object, count: 2 }, "{answer}");
            assert!(!found.repaired);
            assert_eq!(found.usage.total_tokens(), 3);
        }
    }

    #[test]
    fn what_is_wrong_is_asked_for_once_more() {
        let bad = r#"{"object": "dog", "count": "two"}"#;
        let model = Scripted::saying(&[bad, r#"{"object": "dog", "count": 2}"#]);
        let found = complete_json::<Value>(&model, None, &request()).unwrap();
        assert_eq!(found.value["count"], 2);
        assert!(found.repaired);
        assert_eq!(found.usage.total_tokens(), 6);
        let asked = model.asked();
        assert_eq!(asked[1].messages[1], Message::assistant(bad));
        let shown = asked[1].messages[2].text();
        assert!(
            shown.starts_with("This cannot be used: $.count: expected integer, found string."),
            "{shown}"
        );
        assert_eq!(asked[1].json_schema, request().json_schema);
    }

    #[test]
    fn after_the_second_answer_it_is_an_error() {
        for (answer, reason) in [
            (
                "I cannot.",
                "it is not JSON (expected value at line 1 column 1)",
            ),
            ("", "it is empty"),
            (
                "{\"object\": \"do",
                "it is not JSON (EOF while parsing a string at line 1 column 14)",
            ),
            ("[1]", "$: expected object, found array"),
            (
                r#"{"object": "dog", "count": 256}"#,
                "invalid value: integer `256`, expected u8",
            ),
        ] {
            let model = Scripted::saying(&[answer, answer]);
            let error = complete_json::<Tuple>(&model, None, &request()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "model 'scripted' gave no JSON of form 'tuple': {reason}; it answered: {answer}"
                )
            );
        }
    }

    #[test]
    fn a_text_full_of_brackets_is_given_up() {
        let long: &'static str = Box::leak("[{".repeat(500_000).into_boxed_str());
        let model = Scripted::saying(&[long, long]);
        assert!(complete_json::<Value>(&model, None, &request()).is_err());
    }

    #[test]
    fn requests_are_checked_before_they_are_sent() {
        let model = Scripted::saying(&[]);
        let plain = ChatRequest::new(vec![Message::user("hi")]);
        let error = complete_json::<Value>(&model, None, &plain).unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting `json_schema` is missing in the request"
        );
        let odd = plain.with_json_schema("odd", json!({"pattern": "a"}));
        let error = complete_json::<Value>(&model, None, &odd).unwrap_err();
        assert!(matches!(error, LlmError::Schema { .. }), "{error}");
    }

    #[test]
    fn both_answers_are_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let model = Scripted::saying(&["two dogs", r#"{"object": "dog", "count": 2}"#]);
        let made = complete_json::<Tuple>(&model, Some((&mut journal, 0)), &request()).unwrap();
        assert_eq!(journal.len(), 2);
        let silent = Scripted::saying(&[]);
        let again = complete_json::<Tuple>(&silent, Some((&mut journal, 0)), &request()).unwrap();
        assert_eq!(again, made);
    }
}
