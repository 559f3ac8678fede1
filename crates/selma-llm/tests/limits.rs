//! Budgets and rate limits of a client.

mod common;

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use common::{GOOD, Server, hi, http, ok};
use selma_llm::{
    AskAll, ChatModel, ChatRequest, Journal, LlmError, OpenAiClient, Price, PromptConfig,
    PromptEvent, PromptGenerator, Replay, Skill,
};

#[test]
fn a_budget_stops_before_it_is_exceeded() {
    // Each answer uses 13 tokens.
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.budget.tokens = Some(40);
    config.price = Some(Price {
        input_per_million: 1e6,
        output_per_million: 2e6,
    });
    config.in_flight = 1;
    let client = OpenAiClient::new(config.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let requests = vec![hi(); 5];
    let run = |client: &OpenAiClient, journal: &mut Journal, requests: &[ChatRequest]| {
        let all = AskAll::new(client).with_journal(journal, 0);
        all.run(requests, &mut |_| ControlFlow::Continue(()))
    };
    let error = run(&client, &mut journal, &requests).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the budget of 40 tokens is used up: 39 are used, and what is asked next is expected to take 13"
    );
    assert_eq!((server.seen().len(), journal.len()), (3, 3));
    let spent = client.spent();
    assert_eq!((spent.answers, spent.estimated), (3, 0));
    assert_eq!((spent.usage.total_tokens(), spent.cost), (39, 51.0));
    assert_eq!(client.price().unwrap().cost(&spent.usage), 51.0);

    // What the journal answers costs nothing, so the rest is affordable.
    let again = OpenAiClient::new(config.clone()).unwrap();
    assert_eq!(run(&again, &mut journal, &requests).unwrap().len(), 5);
    assert_eq!(again.spent().answers, 2);

    config.budget.tokens = None;
    config.budget.cost = Some(40.0);
    let client = OpenAiClient::new(config).unwrap();
    client.complete(&hi()).unwrap();
    client.complete(&hi()).unwrap();
    let error = client.complete(&hi()).unwrap_err();
    assert!(
        matches!(
            error,
            LlmError::Budget {
                used: 34.0,
                expected: 17.0,
                limit: 40.0,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(server.seen().len(), 7);
}

#[test]
fn a_run_tells_what_it_cost() {
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.price = Some(Price {
        input_per_million: 1e6,
        output_per_million: 2e6,
    });
    let client = OpenAiClient::new(config).unwrap();
    let settings = PromptConfig {
        count: 1,
        ..PromptConfig::default()
    };
    let generator = PromptGenerator::new(Skill::builtin("coco").unwrap(), settings).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let mut quiet = |_: &PromptEvent<'_>| ControlFlow::Continue(());
    let made = generator
        .run(&client, Some(&mut journal), &mut quiet)
        .unwrap();
    assert_eq!(made.report.cost, Some(17.0));
    // Whoever replays it is told the same.
    let replay = Replay::open(&path, &client).unwrap();
    assert_eq!(generator.run(&replay, None, &mut quiet).unwrap(), made);
}

#[test]
fn answers_without_a_count_are_estimated_and_failures_are_free() {
    let uncounted = r#"{"choices":[{"message":{"content":"a"}}]}"#;
    let server = Server::new(vec![http("400 Bad Request", "", "no"), ok(uncounted)]);
    let mut config = server.config();
    // Enough for one request, so that one that fails must give back what it took.
    config.budget.tokens = Some(1);
    let client = OpenAiClient::new(config).unwrap();
    assert!(client.complete(&hi()).is_err());
    assert_eq!(client.spent().answers, 0);
    client.complete(&hi()).unwrap();
    let spent = client.spent();
    assert_eq!((spent.answers, spent.estimated), (1, 1));
    assert_eq!(spent.usage.prompt_tokens, 1);
    assert_eq!(
        spent.usage.completion_tokens,
        uncounted.len().div_ceil(4) as u64
    );
}

#[test]
fn requests_wait_for_their_turn() {
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    // One in 50 ms, however many ask at once.
    config.limits.requests_per_minute = Some(1200.0);
    config.in_flight = 4;
    let client = OpenAiClient::new(config).unwrap();
    let start = Instant::now();
    let all = AskAll::new(&client).run(&vec![hi(); 5], &mut |_| ControlFlow::Continue(()));
    assert_eq!(all.unwrap().len(), 5);
    assert!(
        start.elapsed() >= Duration::from_millis(195),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_server_s_own_limits_are_heeded() {
    let last = "x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 150ms\r\n";
    let server = Server::new(vec![http("200 OK", last, GOOD), ok(GOOD)]);
    let client = server.client();
    client.complete(&hi()).unwrap();
    let start = Instant::now();
    client.complete(&hi()).unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(140),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn one_that_is_told_to_wait_makes_all_wait() {
    let busy = http("429 Too Many Requests", "Retry-After: 0.6\r\n", "");
    let server = Server::new(vec![busy, ok(GOOD)]);
    let client = server.client();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| client.complete(&hi()).unwrap());
        while server.seen().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        // Time for the answer to arrive.
        thread::sleep(Duration::from_millis(200));
        client.complete(&hi()).unwrap();
        assert!(
            start.elapsed() >= Duration::from_millis(600),
            "{:?}",
            start.elapsed()
        );
    });
    assert_eq!(server.seen().len(), 3);
}
