//! What a client sends, and what it makes of answers to more than one prompt, with schemas and with probabilities.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::ops::ControlFlow;

use common::{GOOD, Server, hi, http, ok};
use selma_llm::{
    AskAll, AskAllProgress, ChatModel, ChatRequest, ChatResponse, Endpoint, Journal, LlmError,
    Message, OpenAiClient, OpenAiConfig, PromptConfig, PromptEvent, PromptGenerator, Replay,
    RequestHash, Skill, complete_json,
};
use serde_json::{Value, json};

fn client(config: OpenAiConfig) -> OpenAiClient {
    OpenAiClient::new(config).unwrap()
}

fn body(server: &Server, index: usize) -> Value {
    serde_json::from_str(&server.seen()[index].body).unwrap()
}

fn go_on(_: AskAllProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn extra_fields_and_headers_are_sent() {
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.extra_body = json!({"min_p": 0.1}).as_object().unwrap().clone();
    config.extra_headers = [("X-Title".to_owned(), "a b".to_owned())].into();
    config.omit_fields = vec!["temperature".to_owned()];
    let with = client(config);
    with.complete(&hi()).unwrap();
    assert_eq!(server.seen()[0].header("x-title"), Some("a b"));
    let sent = body(&server, 0);
    assert_eq!(
        (&sent["min_p"], sent.get("temperature")),
        (&json!(0.1), None)
    );
    // Another field makes another answer: it must not be taken from the journal of the first.
    let plain = client(server.config());
    assert_ne!(
        RequestHash::new(&with, 0, &hi()).unwrap(),
        RequestHash::new(&plain, 0, &hi()).unwrap()
    );
}

/// Continues each prompt of a request by its capitals, in reverse order, `n` times.
fn continuing() -> Server {
    Server::answering(|seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let prompts: Vec<String> = match &body["prompt"] {
            Value::String(prompt) => vec![prompt.clone()],
            prompts => serde_json::from_value(prompts.clone()).unwrap(),
        };
        let n = body["n"].as_u64().unwrap_or(1) as usize;
        let choice = |index: usize| {
            let text = format!("{}{}", prompts[index / n].to_uppercase(), index % n);
            json!({"index": index, "text": text})
        };
        let choices: Vec<Value> = (0..prompts.len() * n).rev().map(choice).collect();
        ok(&json!({"choices": choices, "usage": {"prompt_tokens": prompts.len()}}).to_string())
    })
}

#[test]
fn several_prompts_go_in_one_request() {
    let server = continuing();
    let mut config = server.config();
    config.endpoint = Endpoint::Completions;
    config.prompts_per_request = 3;
    config.in_flight = 1;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let mut requests: Vec<ChatRequest> = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .map(|text| ChatRequest::new(vec![Message::user(*text)]).with_n(2))
        .collect();
    requests[4].seed = Some(1);
    let made = AskAll::new(&client(config.clone()))
        .with_journal(&mut journal, 0)
        .run(&requests, &mut go_on)
        .unwrap();
    for (response, letter) in made.iter().zip(["A", "B", "C", "D", "E", "F"]) {
        let texts: Vec<&str> = response.choices.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, [format!("{letter}0"), format!("{letter}1")]);
    }
    let prompts: Vec<Value> = (0..4)
        .map(|index| body(&server, index)["prompt"].clone())
        .collect();
    // One with another seed cannot go with the rest.
    assert_eq!(
        prompts,
        [json!(["a", "b", "c"]), json!("d"), json!("e"), json!("f")]
    );
    let tokens = |made: &[ChatResponse]| -> u64 {
        made.iter()
            .filter_map(|r| r.usage)
            .map(|u| u.prompt_tokens)
            .sum()
    };
    assert_eq!((server.seen().len(), tokens(&made)), (4, 6));
    drop(journal);

    // The journal has the answers as they came, and gives each request its own.
    let mut journal = Journal::replay(&path).unwrap();
    let again = AskAll::new(&client(config))
        .with_journal(&mut journal, 0)
        .run(&requests, &mut go_on)
        .unwrap();
    assert_eq!(again, made);
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_server_that_mixes_prompts_up_is_caught() {
    let mixed = r#"{"choices":[{"index":0,"text":"x"},{"index":0,"text":"y"}]}"#;
    let server = Server::new(vec![ok(mixed)]);
    let mut config = server.config();
    config.endpoint = Endpoint::Completions;
    let error = AskAll::new(&client(config))
        .run(&[hi(), hi()], &mut go_on)
        .unwrap_err()
        .to_string();
    let expected = "expected the indices of `choices` to be 0 to 1, found [0, 0]";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn conversations_go_side_by_side() {
    let server = Server::answering(|seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let text = body["messages"][0]["content"].as_str().unwrap();
        if text == "7" && !seen.body.contains("again") {
            return http("400 Bad Request", "", "seven");
        }
        ok(&json!({"choices": [{"message": {"content": text}}]}).to_string())
    });
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&dir.path().join("journal.jsonl")).unwrap();
    let mut requests: Vec<ChatRequest> = (0..20)
        .map(|number| ChatRequest::new(vec![Message::user(number.to_string())]))
        .collect();
    let model = client(server.config());
    let error = AskAll::new(&model)
        .with_journal(&mut journal, 0)
        .run(&requests, &mut go_on)
        .unwrap_err();
    assert!(
        matches!(error, LlmError::Status { status: 400, .. }),
        "{error}"
    );
    let answered = journal.len();
    assert_eq!(server.seen().len(), answered + 1);
    requests[7].stop = vec!["again".to_owned()];
    let made = AskAll::new(&model)
        .with_journal(&mut journal, 0)
        .run(&requests, &mut go_on)
        .unwrap();
    let texts: Vec<usize> = made
        .iter()
        .map(|r| r.text().unwrap().parse().unwrap())
        .collect();
    assert_eq!(texts, (0..20).collect::<Vec<_>>());
    assert_eq!(server.seen().len(), 21);
}

#[test]
fn a_server_that_ignores_the_schema_is_asked_again() {
    let answer = |text: &str| ok(&json!({"choices": [{"message": {"content": text}}]}).to_string());
    let server = Server::new(vec![
        answer("Here you are: {\"count\": \"two\"}"),
        answer("```json\n{\"count\": 2}\n```"),
    ]);
    let schema = json!({
        "type": "object", "properties": {"count": {"type": "integer"}},
        "required": ["count"], "additionalProperties": false,
    });
    let request = hi().with_json_schema("count", schema.clone());
    let found = complete_json::<Value>(&client(server.config()), None, &request).unwrap();
    assert_eq!((&found.value, found.repaired), (&json!({"count": 2}), true));
    assert_eq!(
        body(&server, 0)["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "count", "strict": true, "schema": schema}})
    );
    assert_eq!(body(&server, 1)["messages"].as_array().unwrap().len(), 3);

    // A schema that cannot be checked is not sent at all.
    let odd = hi().with_json_schema("odd", json!({"pattern": "a"}));
    let error = client(server.config()).complete(&odd).unwrap_err();
    assert_eq!(
        error.to_string(),
        "schema 'odd', #/pattern: this keyword is not supported"
    );
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn probabilities_of_a_yes_come_through_the_journal() {
    let token = |token: &str, p: f64| json!({"token": token, "logprob": p.ln()});
    let mut yes = token(" Yes", 0.6);
    yes["top_logprobs"] = json!([token(" Yes", 0.6), token("yes", 0.1), token("No", 0.25)]);
    let answer =
        json!({"choices": [{"message": {"content": " Yes"}, "logprobs": {"content": [yes]}}]});
    let server = Server::new(vec![ok(&answer.to_string())]);
    let request = hi().with_logprobs(3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let model = client(server.config());
    let mut journal = Journal::open(&path).unwrap();
    let (made, _) = journal.complete(&model, 0, &request).unwrap();
    drop(journal);
    let (again, replayed) = Journal::open(&path)
        .unwrap()
        .complete(&model, 0, &request)
        .unwrap();
    assert!(replayed);
    for response in [made, again] {
        let found = response.choices[0].probability_of("yes").unwrap();
        assert!((found.probability - 0.7).abs() < 1e-12, "{found:?}");
        assert!((found.coverage - 0.95).abs() < 1e-12, "{found:?}");
    }
    let sent = body(&server, 0);
    assert_eq!(
        (&sent["logprobs"], &sent["top_logprobs"]),
        (&json!(true), &json!(3))
    );
}

#[test]
fn a_run_is_replayed_without_a_server() {
    let server = Server::answering(|seen| {
        let text = format!("4. A picture of {}.", seen.body.len());
        ok(&json!({"choices": [{"message": {"content": text}}]}).to_string())
    });
    let config = PromptConfig {
        count: 3,
        threshold: 1.0,
        ..PromptConfig::default()
    };
    let generator = PromptGenerator::new(Skill::builtin("coco").unwrap(), config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let model = client(server.config());
    let mut on = |_: &PromptEvent<'_>| ControlFlow::Continue(());
    let made = generator.run(&model, Some(&mut journal), &mut on).unwrap();
    let asked = server.seen().len();

    let replay = Replay::open(&path, &model).unwrap();
    assert_eq!(generator.run(&replay, None, &mut on).unwrap(), made);
    let mut journal = Journal::replay(&path).unwrap();
    let again = generator.run(&model, Some(&mut journal), &mut on).unwrap();
    assert_eq!(again, made);
    assert_eq!(server.seen().len(), asked);

    // With other settings, these are not the answers.
    let mut config = server.config();
    config.extra_body = json!({"min_p": 0.1}).as_object().unwrap().clone();
    let error = generator
        .run(&client(config), Some(&mut journal), &mut on)
        .unwrap_err();
    assert!(
        matches!(error, LlmError::NotRecorded { index: 0, .. }),
        "{error}"
    );
}
