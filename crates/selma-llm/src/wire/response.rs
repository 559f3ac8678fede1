//! Answers as servers send them.
//!
//! They are read tolerantly, because every server adds, leaves out and misnames something: unknown fields are ignored,
//! absent ones get their obvious value. Only what leaves no text to work with is an error, and what leaves open which of
//! several prompts a text belongs to.

use serde_json::Value;

use super::logprobs::read_logprobs;
use super::{Endpoint, error_message, kind};
use crate::{ChatResponse, Choice, FinishReason, Usage};

/// Whether a body is an answer at all, and not the report of a failure with a status of success. What passes is recorded
/// in journals, whether it can be read or not.
pub(crate) fn check_answer(body: &Value) -> Result<&[Value], String> {
    if !body.is_object() {
        return Err(format!("expected an object, found {}", kind(body)));
    }
    // Gateways report errors of the servers behind them with status 200.
    if let Some(message) = error_message(body) {
        return Err(format!("the server reports an error: {message}"));
    }
    match body.get("choices") {
        Some(Value::Array(choices)) if choices.is_empty() => Err("`choices` is empty".to_owned()),
        Some(Value::Array(choices)) => Ok(choices),
        Some(other) => Err(format!(
            "expected `choices` to be a list, found {}",
            kind(other)
        )),
        None => Err("field `choices` is missing".to_owned()),
    }
}

/// Reads the answer to so many requests that were sent as one; the error says what is wrong and where.
pub(crate) fn read_responses(
    endpoint: Endpoint,
    model: &str,
    body: &Value,
    requests: usize,
) -> Result<Vec<ChatResponse>, String> {
    let choices = check_answer(body)?;
    let mut choices = choices
        .iter()
        .enumerate()
        .map(|(position, choice)| read_choice(endpoint, position, choice))
        .collect::<Result<Vec<Choice>, String>>()?;
    choices.sort_by_key(|choice| choice.index);
    let name = body.get("model").and_then(Value::as_str);
    let name = name.filter(|name| !name.is_empty()).unwrap_or(model);
    let mut usage = read_usage(body);
    let mut responses = Vec::with_capacity(requests);
    for choices in split(choices, requests)? {
        responses.push(ChatResponse {
            model: name.to_owned(),
            choices,
            usage: usage.take(),
        });
    }
    Ok(responses)
}

/// The choices of each request. Those of request `r` with `n` choices each have the indices from `r * n`.
fn split(choices: Vec<Choice>, requests: usize) -> Result<Vec<Vec<Choice>>, String> {
    if requests <= 1 {
        return Ok(vec![choices]);
    }
    let count = choices.len();
    if !count.is_multiple_of(requests) {
        return Err(format!(
            "expected as many choices for each of {requests} prompts, found {count} in all"
        ));
    }
    if choices
        .iter()
        .zip(0..)
        .any(|(choice, index)| choice.index != index)
    {
        let found: Vec<usize> = choices.iter().map(|choice| choice.index).collect();
        return Err(format!(
            "expected the indices of `choices` to be 0 to {}, found {found:?}",
            count - 1
        ));
    }
    let n = count / requests;
    let mut choices = choices.into_iter();
    let mut split = Vec::with_capacity(requests);
    for _ in 0..requests {
        let mut own: Vec<Choice> = choices.by_ref().take(n).collect();
        for (choice, index) in own.iter_mut().zip(0..) {
            choice.index = index;
        }
        split.push(own);
    }
    Ok(split)
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
        logprobs: choice.get("logprobs").and_then(read_logprobs),
        index: index
            .and_then(|index| usize::try_from(index).ok())
            .unwrap_or(position),
        text,
        finish_reason: FinishReason::from(reason.unwrap_or_default().to_owned()),
    })
}

/// The tokens that the server counted.
pub(crate) fn read_usage(body: &Value) -> Option<Usage> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(endpoint: Endpoint, body: &Value) -> Result<ChatResponse, String> {
        read_responses(endpoint, "asked", body, 1).map(|mut responses| responses.remove(0))
    }

    fn chat(body: &Value) -> Result<ChatResponse, String> {
        read(Endpoint::Chat, body)
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
        let response = read(Endpoint::Completions, &body).unwrap();
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
    fn choices_find_their_prompts() {
        let choice = |index: usize| json!({"index": index, "text": format!("t{index}"), "finish_reason": null});
        let order = [5, 0, 3, 1, 4, 2];
        let choices: Vec<Value> = order.into_iter().map(choice).collect();
        let body = json!({"choices": choices, "usage": {"prompt_tokens": 9}});
        let responses = read_responses(Endpoint::Completions, "m", &body, 3).unwrap();
        let texts = |position: usize| -> Vec<(usize, &str)> {
            let choices: &[Choice] = &responses[position].choices;
            choices.iter().map(|c| (c.index, c.text.as_str())).collect()
        };
        assert_eq!(texts(0), [(0, "t0"), (1, "t1")]);
        assert_eq!(texts(2), [(0, "t4"), (1, "t5")]);
        assert_eq!(responses[0].usage.unwrap().prompt_tokens, 9);
        assert_eq!(responses[1].usage, None);

        // Without indices, the order is all there is.
        let body = json!({"choices": [{"text": "a"}, {"text": "b"}]});
        let responses = read_responses(Endpoint::Completions, "m", &body, 2).unwrap();
        assert_eq!(responses[1].text(), Some("b"));
    }

    #[test]
    fn a_choice_that_may_belong_to_another_prompt_is_an_error() {
        for (indices, expected) in [
            (
                vec![0, 1, 2],
                "expected as many choices for each of 2 prompts, found 3 in all",
            ),
            (
                vec![0, 0],
                "expected the indices of `choices` to be 0 to 1, found [0, 0]",
            ),
            (
                vec![2, 1],
                "expected the indices of `choices` to be 0 to 1, found [1, 2]",
            ),
        ] {
            let choices: Vec<Value> = indices
                .into_iter()
                .map(|index| json!({"index": index, "text": "a"}))
                .collect();
            let body = json!({ "choices": choices });
            let error = read_responses(Endpoint::Completions, "m", &body, 2).unwrap_err();
            assert_eq!(error, expected);
        }
    }
}
