//! [`OpenAiClient`] against a loopback server that behaves and misbehaves as real ones do.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use common::{GOOD, KEY, Server, ask, hi, http, ok};
use selma_http::loopback::Act;
use selma_llm::{
    ChatModel, ChatRequest, Endpoint, FinishReason, Journal, LlmError, Message, OpenAiClient,
    OpenAiConfig,
};

#[test]
fn a_good_answer() {
    let server = Server::new(vec![ok(GOOD)]);
    let response = ask(&server).unwrap();
    assert_eq!(
        (response.text(), response.model.as_str()),
        (Some("4. A dog."), "served")
    );
    assert_eq!(response.usage.unwrap().total_tokens(), 13);
    let seen = server.seen();
    let head = seen[0].head.to_lowercase();
    assert!(
        head.starts_with("post /v1/chat/completions http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("authorization: bearer {KEY}")));
    assert!(head.contains("content-type: application/json"));
    let body: serde_json::Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(body["messages"][0]["content"], "hi");
}

#[test]
fn completions_and_no_key() {
    let server = Server::new(vec![ok(
        r#"{"choices":[{"text":"b","index":1},{"text":"a","index":0}]}"#,
    )]);
    let mut config = server.config();
    config.endpoint = Endpoint::Completions;
    config.base_url += "/";
    let client = OpenAiClient::new(config).unwrap();
    let request = ChatRequest::new(vec![Message::user("hi")]).with_n(2);
    let response = client.complete(&request).unwrap();
    let texts: Vec<&str> = response
        .choices
        .iter()
        .map(|choice| choice.text.as_str())
        .collect();
    assert_eq!(texts, ["a", "b"]);
    let seen = server.seen();
    assert!(seen[0].head.starts_with("POST /v1/completions "));
    assert!(!seen[0].head.to_lowercase().contains("authorization"));
    assert!(seen[0].body.contains("\"prompt\":\"hi\""));
}

#[test]
fn passing_failures_are_tried_again() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choices\": [".to_owned();
    let unmarked = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"choices\": [".to_owned();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cho\r\n".to_owned();
    for act in [
        http("500 Internal Server Error", "", "oops"),
        http("429 Too Many Requests", "Retry-After: 0\r\n", ""),
        http("429 Too Many Requests", "retry-after-ms: 1\r\n", ""),
        http("429 Too Many Requests", "Retry-After: 0.001\r\n", ""),
        http(
            "429 Too Many Requests",
            "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
            "",
        ),
        http("503 Service Unavailable", "Retry-After: soon\r\n", ""),
        http("408 Request Timeout", "", ""),
        ok(r#"{"error":{"message":"upstream is down","code":502}}"#),
        http("409 Conflict", "", ""),
        http("404 Not Found", "x-should-retry: true\r\n", "loading"),
        Act::Hang,
        Act::Send(cut.into_bytes()),
        Act::Send(unmarked.into_bytes()),
        Act::Send(chunked.into_bytes()),
        Act::Send(b"what?\r\n\r\n".to_vec()),
    ] {
        let name = match &act {
            Act::Send(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => "hang".to_owned(),
        };
        let server = Server::new(vec![act, ok(GOOD)]);
        let response = ask(&server).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(response.text(), Some("4. A dog."));
        assert_eq!(server.seen().len(), 2, "{name}");
    }
}

#[test]
fn retry_after_is_waited_for() {
    let busy = http("429 Too Many Requests", "Retry-After: 0.2\r\n", "");
    let server = Server::new(vec![busy, ok(GOOD)]);
    let start = Instant::now();
    ask(&server).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn final_failures_are_not_tried_again() {
    for (act, expected) in [
        (
            http(
                "401 Unauthorized",
                "",
                r#"{"error":{"message":"Incorrect API key"}}"#,
            ),
            "answered status 401 after 1 attempt(s): Incorrect API key",
        ),
        (
            http("404 Not Found", "", r#"{"detail":"no such model"}"#),
            r#"answered status 404 after 1 attempt(s): {"detail":"no such model"}"#,
        ),
        (
            http(
                "429 Too Many Requests",
                "",
                r#"{"error":{"message":"You are out.","code":"insufficient_quota"}}"#,
            ),
            "says that the quota is used up: You are out.",
        ),
        (
            http("429 Too Many Requests", "Retry-After: 3600\r\n", "later"),
            "answered status 429 after 1 attempt(s): later",
        ),
        (
            http(
                "500 Internal Server Error",
                "x-should-retry: false\r\n",
                "broken",
            ),
            "answered status 500 after 1 attempt(s): broken",
        ),
        (
            http(
                "307 Temporary Redirect",
                "Location: http://127.0.0.1:9/\r\n",
                "",
            ),
            "answered status 307 after 1 attempt(s): ",
        ),
        (
            ok("<html>\n <title>Login</title></html>"),
            "sent an answer that cannot be read: it is not JSON (expected value at line 1 column 1); it begins: <html> <title>Login</title></html>",
        ),
        (
            ok(&"[".repeat(100_000)),
            "it is not JSON (recursion limit exceeded at line 1 column 128)",
        ),
        (
            ok(""),
            "it is not JSON (EOF while parsing a value at line 1 column 0)",
        ),
        (
            ok(r#"{"choices": [], "usage": {"prompt_tokens": 1}}"#),
            "sent an answer that cannot be read: `choices` is empty",
        ),
        (
            ok(r#"{"choices": {"0": "a"}}"#),
            "expected `choices` to be a list, found an object; it begins: {\"choices\":",
        ),
        (
            ok(r#"{"choices":[{"message":{"content":["a"],"index":0}},{"message":"a"}]}"#),
            "expected `choices[1].message.content` to be a text, found nothing",
        ),
        (
            ok(r#"{"error":{"message":"upstream is down","code":"down"}}"#),
            "the server reports an error: upstream is down",
        ),
        (
            ok(r#"{"error":{"message":"no such model","code":404}}"#),
            "answered status 404 after 1 attempt(s): no such model",
        ),
    ] {
        let server = Server::new(vec![act]);
        let error = ask(&server).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(server.0.url()), "{error}");
        assert_eq!(server.seen().len(), 1, "{expected}");
    }
}

#[test]
fn patience_has_an_end() {
    let page = format!("<html><h1>Bad Gateway</h1>{}</html>", "x".repeat(5000));
    let server = Server::new(vec![http(
        "502 Bad Gateway",
        "Content-Type: text/html\r\n",
        &page,
    )]);
    let error = ask(&server).unwrap_err().to_string();
    assert!(error.contains("status 502 after 3 attempt(s): <html><h1>Bad Gateway</h1>xxx"));
    assert!(error.len() < 500 && error.ends_with('…'), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn slow_answers_time_out() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choices\"".to_vec();
    let whole = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{GOOD}");
    for act in [
        Act::Stall(Vec::new(), Duration::from_secs(3)),
        Act::Stall(head, Duration::from_secs(3)),
        // Each byte is in time, all of them are not.
        Act::Drip(whole.into_bytes(), 1, Duration::from_millis(20)),
    ] {
        let server = Server::new(vec![act]);
        let mut config = server.config();
        config.timeout_s = 0.2;
        config.max_retries = 0;
        let client = OpenAiClient::new(config).unwrap();
        let start = Instant::now();
        let error = client.complete(&hi()).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(
            matches!(error, LlmError::Transport { attempts: 1, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("timeout"), "{error}");
    }
}

#[test]
fn a_slow_answer_in_time_is_read() {
    let whole = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{GOOD}");
    let server = Server::new(vec![Act::Drip(
        whole.into_bytes(),
        40,
        Duration::from_millis(5),
    )]);
    assert_eq!(ask(&server).unwrap().text(), Some("4. A dog."));
}

#[test]
fn an_endless_answer_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"choices\":[";
    let server = Server::new(vec![Act::Endless(
        head.as_bytes().to_vec(),
        b"{\"message\":{\"content\":\"\"}},".repeat(100),
    )]);
    let mut config = server.config();
    config.max_answer_bytes = 100_000;
    let client = OpenAiClient::new(config).unwrap();
    let error = client.complete(&hi()).unwrap_err().to_string();
    let expected =
        r#"cannot be read: it is longer than 100000 bytes; it begins: {"choices":[{"message""#;
    assert!(error.contains(expected), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn what_servers_call_their_answers_does_not_matter() {
    for headers in [
        "",
        "Content-Type: text/html\r\n",
        "Content-Type: text/event-stream; charset=latin-1\r\n",
        "Content-Type: \r\n",
    ] {
        for status in ["200 OK", "201 Created"] {
            let server = Server::new(vec![http(status, headers, GOOD)]);
            assert_eq!(ask(&server).unwrap().text(), Some("4. A dog."), "{headers}");
        }
    }
    // Bytes that are no text are replaced, the rest is read.
    let mut odd = GOOD.as_bytes().to_vec();
    let dog = GOOD.find("dog").unwrap();
    odd[dog] = 0xff;
    let server = Server::new(vec![Act::answer("200 OK", "", &odd)]);
    assert_eq!(ask(&server).unwrap().text(), Some("4. A \u{fffd}og."));
}

#[test]
fn answers_that_leave_things_out_are_read() {
    for (reason, expected) in [
        ("null", FinishReason::Other(String::new())),
        ("\"\"", FinishReason::Other(String::new())),
        ("\"eos\"", FinishReason::Other("eos".to_owned())),
        ("\"length\"", FinishReason::Length),
    ] {
        let body = format!(
            r#"{{"choices":[{{"index":3,"message":{{"content":"b"}}}},{{"index":1,"message":{{"content":"a"}},"finish_reason":{reason}}}]}}"#
        );
        let server = Server::new(vec![ok(&body)]);
        let response = ask(&server).unwrap();
        assert_eq!((response.text(), response.usage), (Some("a"), None));
        assert_eq!(response.choices[0].finish_reason, expected);
    }
}

#[test]
fn a_server_that_is_not_there() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = OpenAiConfig::new(format!("http://{address}/v1"), "m");
    config.backoff_s = 0.001;
    config.max_retries = 1;
    let client = OpenAiClient::new(config).unwrap();
    let error = client
        .complete(&ChatRequest::new(vec![Message::user("hi")]))
        .unwrap_err();
    assert!(
        matches!(error, LlmError::Transport { attempts: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_server_without_tls_behind_an_https_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            // Closing with the client's bytes unread would reset the connection before it reads the answer.
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let mut config = OpenAiConfig::new(format!("https://{address}/v1"), "m");
    config.backoff_s = 0.001;
    config.timeout_s = 5.0;
    let client = OpenAiClient::new(config).unwrap();
    let request = ChatRequest::new(vec![Message::user("hi")]);
    let error = client.complete(&request).unwrap_err();
    assert!(
        matches!(error, LlmError::Transport { attempts: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_failure_is_not_journaled() {
    let server = Server::new(vec![http("400 Bad Request", "", "no"), ok(GOOD)]);
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&dir.path().join("journal.jsonl")).unwrap();
    let request = ChatRequest::new(vec![Message::user("hi")]);
    let client = server.client();
    assert!(journal.complete(&client, 0, &request).is_err());
    assert!(journal.is_empty());
    assert!(!journal.complete(&client, 0, &request).unwrap().1);
    assert!(journal.complete(&client, 0, &request).unwrap().1);
    assert_eq!(server.seen().len(), 2);
}
