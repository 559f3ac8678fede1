use std::fs;

use super::*;
use crate::testing::{Scripted, ask, no_more};

/// Answers with the number of the call, counted from `first`; fails on request.
fn counter(first: usize) -> Scripted {
    Scripted::new("counter", move |call, request| match &*request.text() {
        "fail" => Err(no_more()),
        _ => Ok(ChatResponse::single(
            "counter",
            format!("answer {}\n", first + call),
        )),
    })
}

#[test]
fn answers_are_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let model = counter(0);
    let mut journal = Journal::open(&path).unwrap();
    let (first, replayed) = journal.complete(&model, 0, &ask("a")).unwrap();
    assert!(!replayed);
    // The same text as another request of the run is another request.
    let (second, _) = journal.complete(&model, 1, &ask("a")).unwrap();
    assert_ne!(first, second);
    assert!(journal.complete(&model, 2, &ask("fail")).is_err());
    drop(journal);

    let mut journal = Journal::open(&path).unwrap();
    assert_eq!((journal.len(), journal.repaired_bytes()), (2, 0));
    assert_eq!(
        journal.complete(&model, 0, &ask("a")).unwrap(),
        (first, true)
    );
    assert_eq!(
        journal.complete(&model, 1, &ask("a")).unwrap(),
        (second, true)
    );
    assert_eq!(model.asked().len(), 3);
    let (_, replayed) = journal.complete(&model, 0, &ask("b")).unwrap();
    assert!(!replayed);
}

#[test]
fn a_torn_answer_is_dropped_and_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let model = counter(0);
    journal.complete(&model, 0, &ask("a")).unwrap();
    journal.complete(&model, 1, &ask("ä")).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (cut, answers, repaired) in [
        (first + 20, 1, 20),
        // A line that lacks its end only is whole.
        (whole.len() - 1, 2, 0),
    ] {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(
            (journal.len(), journal.repaired_bytes()),
            (answers, repaired)
        );
        let model = counter(answers);
        let (_, replayed) = journal.complete(&model, 1, &ask("ä")).unwrap();
        assert_eq!(replayed, answers == 2);
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn the_first_answer_that_can_be_read_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let model = counter(0);
    let hash = RequestHash::new(&model, 0, &ask("a")).unwrap();
    let raw = |text: &str| {
        Answer::Raw(RawAnswer {
            url: "http://h/v1/chat/completions".to_owned(),
            endpoint: Endpoint::Chat,
            model: "counter".to_owned(),
            body: format!("{{\"choices\":[{{\"message\":{text}}}]}}"),
        })
    };
    let mut journal = Journal::open(&path).unwrap();
    let hashes = std::slice::from_ref(&hash);
    let error = journal.record(hashes, &raw("7")).unwrap_err();
    assert!(error.to_string().contains("`choices[0].message.content`"));
    assert_eq!((journal.len(), journal.unreadable()), (0, 1));
    for (text, found) in [("first", "first"), ("second", "second")] {
        let answer = raw(&format!("{{\"content\":\"{text}\"}}"));
        let read = journal.record(hashes, &answer).unwrap();
        assert_eq!(read[0].text(), Some(found));
    }
    drop(journal);
    // All three are kept as they came.
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    let journal = Journal::open(&path).unwrap();
    assert_eq!((journal.len(), journal.unreadable()), (1, 1));
    assert_eq!(journal.get(&hash).unwrap().text(), Some("first"));
}

#[test]
fn journals_of_before_are_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let hash = RequestHash::new(&counter(0), 0, &ask("a")).unwrap();
    let line = format!(
        r#"{{"request":"{hash}","response":{{"model":"m","choices":[{{"index":0,"text":"old","finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":2}}}}}}"#
    );
    fs::write(&path, line + "\n").unwrap();
    let mut journal = Journal::open(&path).unwrap();
    let model = counter(0);
    let (response, replayed) = journal.complete(&model, 0, &ask("a")).unwrap();
    assert_eq!((response.text(), replayed), (Some("old"), true));
    // What a model in the same process says is still written that way.
    journal.complete(&model, 1, &ask("a")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let second = text.lines().nth(1).unwrap();
    assert!(second.starts_with(r#"{"request":""#), "{second}");
    assert!(!second.contains("version"), "{second}");
}

#[test]
fn a_replay_asks_nobody_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let model = counter(0);
    let mut journal = Journal::open(&path).unwrap();
    let (first, _) = journal.complete(&model, 0, &ask("a")).unwrap();
    let before = fs::read(&path).unwrap();
    let mut replay = Journal::replay(&path).unwrap();
    assert_eq!(
        replay.complete(&model, 0, &ask("a")).unwrap(),
        (first, true)
    );
    let error = replay
        .complete(&model, 1, &ask("a long\n question"))
        .unwrap_err();
    let hash = RequestHash::new(&model, 1, &ask("a long\n question")).unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} has no answer of model 'counter' to request 1 ({hash}), which begins: \"a long question\"",
            path.display()
        )
    );
    assert_eq!(model.asked().len(), 1);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(Journal::replay(&dir.path().join("none")).is_err());
}

#[test]
fn two_writers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let journal = Journal::open(&path).unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("journal.jsonl is in use by another writer"),
        "{error}"
    );
    drop(journal);
    Journal::open(&path).unwrap();
}

#[test]
fn lines_of_other_versions_and_mixed_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    for (line, expected) in [
        (
            r#"{"version":3,"requests":["h"],"body":""}"#,
            "version 3 is unknown, expected 2 or none",
        ),
        (
            r#"{"version":2,"requests":["h"],"body":""}"#,
            "expected the fields `version`, `requests`, `url`, `endpoint`, `model` and `body` alone",
        ),
        (
            r#"{"request":"h"}"#,
            "expected the fields `request` and `response` alone",
        ),
        (
            r#"{"request":"h","response":{"model":"m","choices":[],"usage":null},"body":""}"#,
            "expected the fields `request` and `response` alone",
        ),
    ] {
        fs::write(&path, format!("{line}\n")).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("journal.jsonl, line 1: {expected}")),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_entry_is_an_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let model = counter(0);
    journal.complete(&model, 0, &ask("a")).unwrap();
    drop(journal);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("\"response\"", "\"answer\"")).unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("journal.jsonl, line 1: unknown field `answer`"),
        "{error}"
    );
}
