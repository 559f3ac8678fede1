//! Questions by a language model behind a loopback server that answers well, badly and not at all.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::ops::ControlFlow;

use selma_eval::{
    EvalError, QuestionSet,
    dsg::{Quirks, WriteProgress, WrittenQuestions, write_questions},
    rating::StudyPrompt,
};
use selma_http::loopback::{Act, Seen, Server};
use selma_llm::{ChatModel, Journal, OpenAiClient, OpenAiConfig, Recorded};
use serde_json::{Value, json};

fn says(text: &str) -> Act {
    let choice = json!({"index": 0, "message": {"content": text}, "finish_reason": "stop"});
    let body = json!({"choices": [choice]}).to_string();
    Act::answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        body.as_bytes(),
    )
}

/// A request: the form that is wanted, what the prompt is, and how often it was asked before.
struct Asked {
    step: String,
    prompt: String,
    turn: usize,
}

fn read(seen: &Seen) -> Asked {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let text = messages[0]["content"].as_str().unwrap();
    let last = text.rsplit("input: ").next().unwrap();
    assert_eq!(body["temperature"], 0.0);
    Asked {
        step: body["response_format"]["json_schema"]["name"]
            .as_str()
            .unwrap()
            .to_owned(),
        prompt: last.lines().next().unwrap().to_owned(),
        turn: messages.len() / 2,
    }
}

/// What a good model says about "a red X".
fn good(asked: &Asked) -> String {
    let thing = asked.prompt.rsplit(' ').next().unwrap();
    let answer = match asked.step.as_str() {
        "tuples" => json!({"tuples": [
            {"id": 1, "category": "entity", "detail": "whole", "words": [thing]},
            {"id": 2, "category": "attribute", "detail": "color", "words": [thing, "red"]},
        ]}),
        "dependencies" => {
            json!({"dependencies": [{"id": 2, "parents": [1]}, {"id": 1, "parents": [0]}]})
        }
        "questions" => json!({"questions": [
            {"id": 1, "question": format!("Is there a {thing}?")},
            {"id": 2, "question": format!("Is the {thing} red?")},
        ]}),
        other => panic!("{other}"),
    };
    answer.to_string()
}

fn client(server: &Server) -> OpenAiClient {
    let mut config = OpenAiConfig::new(format!("{}/v1", server.url()), "writer");
    config.backoff_s = 0.001;
    config.backoff_cap_s = 0.002;
    config.max_retries = 1;
    OpenAiClient::with_key(config, None).unwrap()
}

fn prompts(things: &[&str]) -> Vec<StudyPrompt> {
    let prompt = |thing: &&str| StudyPrompt {
        id: format!("mine_{thing}"),
        text: format!("a red {thing}"),
        category: None,
    };
    things.iter().map(prompt).collect()
}

fn write(model: &dyn ChatModel, things: &[&str]) -> Result<WrittenQuestions, EvalError> {
    let mut seen = 0;
    let written = write_questions(model, &prompts(things), |progress: WriteProgress| {
        seen += 1;
        assert_eq!((progress.done, progress.total), (seen, things.len()));
        ControlFlow::Continue(())
    });
    assert!(written.is_err() || seen == things.len());
    written
}

#[test]
fn three_steps_make_a_file_that_dsg_reads() {
    let server = Server::answering(|seen| says(&good(&read(seen))));
    let written = write(&client(&server), &["dog", "car", "cup"]).unwrap();
    assert_eq!((written.questions.len(), written.unwritten.len()), (6, 0));
    assert_eq!(server.seen().len(), 9);
    let row = &written.questions[3];
    assert_eq!(
        (row.item_id.as_str(), row.text.as_str(), row.proposition_id),
        ("mine_car", "a red car", 2)
    );
    assert_eq!(
        (row.keywords.as_str(), row.tuple.as_str()),
        ("car, red", "attribute - color (car, red)")
    );
    assert_eq!(
        (row.category_broad.as_str(), row.category_detailed.as_str()),
        ("attribute", "color")
    );
    assert_eq!(
        (row.dependency.as_slice(), row.question.as_str()),
        ([1].as_slice(), "Is the car red?")
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("questions.csv");
    let set = QuestionSet::new(written.questions).unwrap();
    set.write(&path).unwrap();
    assert_eq!(QuestionSet::read(&path, Quirks::Strict).unwrap(), set);
}

#[test]
fn what_is_wrong_is_asked_for_once_more_and_then_told() {
    // Of each step the answers that a model must not give; `cat` learns from being told, `dog` does not.
    for (step, bad, reason) in [
        ("tuples", "I see a dog.".to_owned(), "it is not JSON"),
        ("tuples", json!({"tuples": []}).to_string(), "expected at least 1 items"),
        ("tuples", good(&Asked { step: "tuples".into(), prompt: "x".into(), turn: 0 }).replace("\"id\":2", "\"id\":1"), "the ids must be 1, 2, 3"),
        ("tuples", good(&Asked { step: "tuples".into(), prompt: "x".into(), turn: 0 }).replace("entity", "thing"), "category"),
        ("dependencies", json!({"dependencies": [{"id": 1, "parents": []}]}).to_string(), "items"),
        ("dependencies", json!({"dependencies": [{"id": 1, "parents": [3]}, {"id": 2, "parents": []}]}).to_string(), "parents"),
        ("dependencies", json!({"dependencies": [{"id": 1, "parents": [2]}, {"id": 2, "parents": [1]}]}).to_string(), "in a circle: 1 on 2 on 1"),
        ("questions", json!({"questions": [{"id": 1, "question": "Is there one?"}, {"id": 1, "question": "Is it red?"}]}).to_string(), "id 1 stands twice"),
        ("questions", json!({"questions": [{"id": 1, "question": "What is there?"}, {"id": 2, "question": "Is it red?"}]}).to_string(), "cannot be answered with yes or no"),
    ] {
        let server = Server::answering(move |seen| {
            let asked = read(seen);
            let wrong = asked.step == step
                && (asked.prompt.ends_with("dog") || asked.prompt.ends_with("cat") && asked.turn == 0);
            says(&if wrong { bad.clone() } else { good(&asked) })
        });
        let written = write(&client(&server), &["dog", "cat", "cup"]).unwrap();
        let items: Vec<&str> = written.questions.iter().map(|row| row.item_id.as_str()).collect();
        assert_eq!(items, ["mine_cat", "mine_cat", "mine_cup", "mine_cup"], "{reason}");
        let [unwritten] = written.unwritten.as_slice() else {
            panic!("{:?}", written.unwritten)
        };
        assert_eq!((unwritten.id.as_str(), unwritten.text.as_str(), unwritten.step.as_str()), ("mine_dog", "a red dog", step));
        assert!(unwritten.reason.contains(reason), "{}", unwritten.reason);
    }
}

#[test]
fn what_was_answered_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let things = ["dog", "cat", "cup", "car", "hat"];
    // One prompt is too much for this server.
    let server = Server::answering(|seen| {
        let asked = read(seen);
        if asked.prompt.ends_with("cup") && asked.step == "questions" {
            return Act::answer("500 Internal Server Error", "", b"oops");
        }
        says(&good(&asked))
    });
    let model = Recorded::new(client(&server), Journal::open(&path).unwrap());
    let first = write(&model, &things).unwrap();
    assert_eq!((first.questions.len(), first.unwritten.len()), (8, 1));
    assert!(
        first.unwritten[0]
            .reason
            .contains("status 500 after 2 attempt(s): oops")
    );
    drop(model);
    let server = Server::answering(|seen| says(&good(&read(seen))));
    let model = Recorded::new(client(&server), Journal::open(&path).unwrap());
    let second = write(&model, &things).unwrap();
    assert_eq!((second.questions.len(), second.unwritten.len()), (10, 0));
    assert_eq!(server.seen().len(), 1);
    let ids: Vec<&str> = second
        .questions
        .iter()
        .step_by(2)
        .map(|row| row.item_id.as_str())
        .collect();
    assert_eq!(ids, things.map(|thing| format!("mine_{thing}")));
}

#[test]
fn a_dead_server_a_refused_key_and_an_observer_end_it() {
    let server = Server::scripted(vec![Act::Hang]);
    let many: Vec<String> = (0..40).map(|n| format!("thing{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = write(&client(&server), &many).unwrap_err().to_string();
    assert!(
        error.starts_with("questions cannot be written: 10 requests in a row got no answer"),
        "{error}"
    );
    let server = Server::scripted(vec![Act::answer("401 Unauthorized", "", b"who?")]);
    let error = write(&client(&server), &["dog"]).unwrap_err().to_string();
    assert!(
        error.contains("status 401") && error.contains("who?"),
        "{error}"
    );
    assert!(matches!(
        write(&client(&server), &[]),
        Err(EvalError::Empty { .. })
    ));
    let server = Server::answering(|seen| says(&good(&read(seen))));
    let error = write_questions(
        &client(&server),
        &prompts(&many),
        |_| ControlFlow::Break(()),
    );
    assert!(
        matches!(error, Err(EvalError::Cancelled { total: 40, .. })),
        "{error:?}"
    );
    assert!(server.seen().len() <= 15, "{}", server.seen().len());
}
