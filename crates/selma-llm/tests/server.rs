//! [`OpenAiClient`] against a loopback server that behaves and misbehaves as real ones do.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use selma_http::loopback::{self, Act, Seen};
use selma_llm::{
    ChatModel, ChatRequest, ChatResponse, Endpoint, Journal, LlmError, Message, OpenAiClient,
    OpenAiConfig, PromptConfig, PromptGenerator, SecretString, Skill,
};

const KEY: &str = "sk-very-secret-0123456789";
const GOOD: &str = r#"{"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"4. A dog."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;

fn http(status: &str, headers: &str, body: &str) -> Act {
    Act::answer(status, headers, body.as_bytes())
}

fn ok(body: &str) -> Act {
    http("200 OK", "Content-Type: application/json\r\n", body)
}

/// A server that is asked as a language model.
struct Server(loopback::Server);

impl Server {
    /// Serves one connection after the other; the last act is repeated.
    fn new(acts: Vec<Act>) -> Self {
        Self(loopback::Server::scripted(acts))
    }

    fn config(&self) -> OpenAiConfig {
        let mut config = OpenAiConfig::new(format!("{}/v1", self.0.url()), "asked");
        config.backoff_s = 0.001;
        config.backoff_cap_s = 0.002;
        config.timeout_s = 20.0;
        config.max_retries = 2;
        config
    }

    fn client(&self) -> OpenAiClient {
        let key = SecretString::from(KEY);
        OpenAiClient::with_key(self.config(), Some(key)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.seen()
    }
}

fn ask(server: &Server) -> Result<ChatResponse, LlmError> {
    server
        .client()
        .complete(&ChatRequest::new(vec![Message::user("hi")]))
}

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
            ok(""),
            "it is not JSON (EOF while parsing a value at line 1 column 0)",
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
            ok(r#"{"error":{"message":"upstream is down","code":502}}"#),
            "the server reports an error: upstream is down",
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
    for act in [
        Act::Stall(Vec::new(), Duration::from_secs(3)),
        Act::Stall(head, Duration::from_secs(3)),
    ] {
        let server = Server::new(vec![act]);
        let mut config = server.config();
        config.timeout_s = 0.2;
        config.max_retries = 0;
        let client = OpenAiClient::new(config).unwrap();
        let start = Instant::now();
        let error = client
            .complete(&ChatRequest::new(vec![Message::user("hi")]))
            .unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(
            matches!(error, LlmError::Transport { attempts: 1, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("timeout"), "{error}");
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
fn the_key_is_shown_nowhere() {
    let echo = format!(r#"{{"error":{{"message":"bad key {KEY}, sorry"}}}}"#);
    let choice =
        format!(r#"{{"model":"{KEY}","choices":[{{"message":{{"content":"4. A {KEY} dog."}}}}]}}"#);
    let wrong = format!(r#"{{"choices":[{{"message":{{"content":7}},"x":"{KEY}"}}]}}"#);
    let padded = format!("{}{KEY}", "x".repeat(290));
    for act in [
        http("401 Unauthorized", "", &echo),
        http("500 Internal Server Error", "", &format!("<p>{KEY}</p>")),
        http("500 Internal Server Error", "", &padded),
        ok(&wrong),
        ok(&echo),
        ok(&format!("<p>{KEY}</p>")),
    ] {
        let server = Server::new(vec![act]);
        let error = ask(&server).unwrap_err();
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains("sk-very"), "{shown}");
    }

    let server = Server::new(vec![ok(&choice)]);
    let client = server.client();
    assert!(!format!("{client:?} {client:#?}").contains("sk-very"));
    let config = PromptConfig {
        count: 1,
        ..PromptConfig::default()
    };
    let generator = PromptGenerator::new(Skill::builtin("coco").unwrap(), config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let made = generator
        .run(&client, Some(&mut journal), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(made.prompts[0].text, "A [key] dog.");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("sk-very"));

    // A placeholder key is no secret, and must not eat words of the answer.
    let server = Server::new(vec![ok(GOOD)]);
    let client = OpenAiClient::with_key(server.config(), Some(SecretString::from("dog"))).unwrap();
    let response = client
        .complete(&ChatRequest::new(vec![Message::user("hi")]))
        .unwrap();
    assert_eq!(response.text(), Some("4. A dog."));
}

#[test]
fn keys_come_from_the_named_variable() {
    // Cargo sets this one for every test.
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.api_key_env = Some("CARGO_PKG_NAME".to_owned());
    let client = OpenAiClient::new(config.clone()).unwrap();
    client
        .complete(&ChatRequest::new(vec![Message::user("hi")]))
        .unwrap();
    let head = server.seen()[0].head.to_lowercase();
    assert!(
        head.contains("authorization: bearer selma-llm\r\n"),
        "{head}"
    );

    config.api_key_env = Some("SELMA_LLM_NO_SUCH_KEY".to_owned());
    let error = OpenAiClient::new(config.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable SELMA_LLM_NO_SUCH_KEY holds no API key"
    );
    let error = OpenAiClient::with_key(config, Some(SecretString::from("sk-\nvery"))).unwrap_err();
    assert!(matches!(error, LlmError::KeyInvalid));
    assert!(!format!("{error} {error:?}").contains("very"));
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
