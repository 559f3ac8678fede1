//! The API key: where it comes from, and that it is shown nowhere.

mod common;

use std::fs;
use std::ops::ControlFlow;

use common::{GOOD, KEY, Server, ask, hi, http, ok};
use selma_llm::{
    AskAll, Azure, ChatModel, Journal, LlmError, OpenAiClient, PromptConfig, PromptGenerator,
    SecretString, Skill, write_prompts, write_rejected,
};

#[test]
fn the_key_is_shown_nowhere() {
    let echo = format!(r#"{{"error":{{"message":"bad key {KEY}, sorry"}}}}"#);
    // The second spelling is one that a search for the key would not find.
    let choice = format!(
        r#"{{"model":"{KEY}","choices":[{{"message":{{"content":"4. {KEY} {}\n5. A \u0073{} dog."}}}}],"{KEY}":1}}"#,
        "word ".repeat(31),
        &KEY[1..]
    );
    let wrong = format!(r#"{{"choices":[{{"message":{{"content":7}},"x":"{KEY}"}}]}}"#);
    let spelt = format!(r#"{{"choices":[],"detail":"\u0073{}"}}"#, &KEY[1..]);
    let padded = format!("{}{KEY}", "x".repeat(290));
    for act in [
        http("401 Unauthorized", "", &echo),
        http("500 Internal Server Error", "", &format!("<p>{KEY}</p>")),
        http("500 Internal Server Error", "", &padded),
        http("500 Internal Server Error", "", &spelt),
        ok(&spelt),
        ok(&wrong),
        ok(&echo),
        ok(&format!("<p>{KEY}</p>")),
    ] {
        let server = Server::new(vec![act]);
        let error = ask(&server).unwrap_err();
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains("very-secret"), "{shown}");
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
    // All that a run writes into its folder, its settings included.
    let file = |name| dir.path().join(name);
    write_prompts(&file("coco.jsonl"), &made.prompts).unwrap();
    write_rejected(&file("coco.rejected.jsonl"), &made.rejected).unwrap();
    fs::write(file("report"), format!("{:?}", made.report)).unwrap();
    fs::write(
        file("recipe.toml"),
        toml::to_string(client.config()).unwrap(),
    )
    .unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("[key]"));
    assert!(made.rejected[0].text.contains("[key]"));
    let mut files = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let written = fs::read_to_string(entry.unwrap().path()).unwrap();
        for word in ["sk-very", "0123456789", "\\u0073k", "Bearer", "bearer"] {
            assert!(!written.contains(word), "{written}");
        }
        files += 1;
    }
    assert_eq!(files, 5);

    // A placeholder key is no secret, and must not eat words of the answer.
    let server = Server::new(vec![ok(GOOD)]);
    let client = OpenAiClient::with_key(server.config(), Some(SecretString::from("dog"))).unwrap();
    let response = client.complete(&hi()).unwrap();
    assert_eq!(response.text(), Some("4. A dog."));
}

#[test]
fn the_key_is_in_no_journal_whatever_fails() {
    let echo = format!(r#"{{"choices":[{{"message":{{"content":7,"x":"{KEY}"}}}}]}}"#);
    let server = Server::new(vec![
        http("401 Unauthorized", "", KEY),
        http("429 Too Many Requests", "", KEY),
        // An answer that is recorded before it turns out to be unreadable.
        ok(&echo),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let client = server.client();
    for _ in 0..2 {
        let error = AskAll::new(&client)
            .with_journal(&mut journal, 0)
            .run(&[hi()], &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert!(!format!("{error} {error:?} {journal:?}").contains("sk-very"));
    }
    assert_eq!(journal.unreadable(), 1);
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written.contains("[key]") && !written.contains("sk-very"),
        "{written}"
    );
}

#[test]
fn some_servers_have_headers_and_addresses_of_their_own() {
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.base_url = server.0.url().to_owned();
    config.azure = Some(Azure {
        deployment: "my-gpt".to_owned(),
        api_version: "2024-10-21".to_owned(),
    });
    let key = Some(SecretString::from(KEY));
    let client = OpenAiClient::with_key(config, key.clone()).unwrap();
    client.complete(&hi()).unwrap();
    let mut config = server.config();
    config.api_key_header = Some("X-API-Key".to_owned());
    let client = OpenAiClient::with_key(config, key).unwrap();
    client.complete(&hi()).unwrap();
    let seen = server.seen();
    assert_eq!(
        seen[0].path(),
        "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    );
    assert_eq!(seen[0].header("api-key"), Some(KEY));
    assert_eq!(seen[1].header("x-api-key"), Some(KEY));
    for seen in seen {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[test]
fn a_key_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, format!("{KEY}\n")).unwrap();
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.api_key_file = Some(path);
    let client = OpenAiClient::new(config).unwrap();
    client.complete(&hi()).unwrap();
    let bearer = format!("Bearer {KEY}");
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some(bearer.as_str())
    );
    assert!(!format!("{client:?}").contains("sk-very"));
}

#[test]
fn keys_come_from_the_named_variable() {
    // Cargo sets this one for every test.
    let server = Server::new(vec![ok(GOOD)]);
    let mut config = server.config();
    config.api_key_env = Some("CARGO_PKG_NAME".to_owned());
    let client = OpenAiClient::new(config.clone()).unwrap();
    client.complete(&hi()).unwrap();
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
