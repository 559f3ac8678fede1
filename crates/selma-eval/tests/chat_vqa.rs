//! [`ChatVqa`] and [`CachedVqa`] against a loopback server that behaves and misbehaves as real ones do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::{
    fs,
    io::Write,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{Rgb, RgbImage};
use selma_eval::{
    Bootstrap, CachedVqa, ChatPrompt, ChatVqa, DsgQuestion, EvalError, EvalOptions, EvalResult,
    PictureFormat, QuestionSet, Reply, Vqa, VqaScoreResult, dsg::AnswerMatch, evaluate,
    rating::StudyPrompt, vqa_score,
};
use selma_http::loopback::{Act, Seen, Server};
use selma_llm::{OpenAiClient, OpenAiConfig};
use serde_json::{Value, json};

const PROMPT: &str =
    "Answer only with 'yes' or 'no'. Do not give other outputs or punctuation marks. Question: ";

/// An answer of a chat server: words, and the probabilities of first tokens.
fn says(text: &str, top: &[(&str, f64)]) -> Act {
    let top = top
        .iter()
        .map(|(token, p)| json!({"token": token, "logprob": p.ln()}));
    let top: Vec<Value> = top.collect();
    let logprobs = top.first().map(|first| {
        json!({"content": [{"token": first["token"], "logprob": first["logprob"], "top_logprobs": top}]})
    });
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": logprobs});
    ok(&json!({"model": "seer", "choices": [choice]}))
}

fn ok(body: &Value) -> Act {
    let body = body.to_string();
    Act::answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        body.as_bytes(),
    )
}

fn status(status: &str) -> Act {
    Act::answer(status, "", br#"{"error":{"message":"not today"}}"#)
}

fn question_of(seen: &Seen) -> String {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let text = body["messages"][0]["content"][0]["text"].as_str().unwrap();
    text.strip_prefix(PROMPT).unwrap().to_owned()
}

/// Sees whether the picture's first pixel has the colour that is asked for.
fn sees(seen: &Seen) -> Act {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let uri = body["messages"][0]["content"][1]["image_url"]["url"]
        .as_str()
        .unwrap();
    let data = STANDARD
        .decode(uri.split_once("base64,").unwrap().1)
        .unwrap();
    let Rgb([red, ..]) = *image::load_from_memory(&data)
        .unwrap()
        .into_rgb8()
        .get_pixel(0, 0);
    let yes = question_of(seen).contains("red") == (red > 128);
    if yes {
        says(
            "Yes.",
            &[("Yes", 0.6), ("No", 0.2), (" yes", 0.1), ("It", 0.05)],
        )
    } else {
        says("no", &[("no", 0.75), ("yes", 0.25)])
    }
}

fn client(url: &str) -> OpenAiClient {
    let mut config = OpenAiConfig::new(format!("{url}/v1"), "seer");
    config.backoff_s = 0.001;
    config.backoff_cap_s = 0.002;
    config.max_retries = 2;
    config.timeout_s = 20.0;
    OpenAiClient::with_key(config, None).unwrap()
}

fn judge(url: &str) -> ChatVqa<OpenAiClient> {
    ChatVqa::new(client(url), ChatPrompt::YesNo)
}

fn red() -> RgbImage {
    RgbImage::from_pixel(5, 3, Rgb([200, 1, 2]))
}

fn reply(vqa: &dyn Vqa, question: &str) -> Result<Reply, EvalError> {
    let mut replies = Vec::new();
    vqa.replies(&red(), &[question], &mut |reply| {
        replies.push(reply);
        Ok(())
    })?;
    assert_eq!(replies.len(), 1);
    Ok(replies.remove(0))
}

#[test]
fn asks_as_published_and_keeps_how_likely_yes_was() {
    let server = Server::answering(sees);
    let judge = judge(server.url());
    let yes = reply(&judge, "Is it red?").unwrap();
    assert_eq!((yes.text.as_str(), &yes.failure), ("Yes.", &None));
    let likely = yes.yes.unwrap();
    assert!((likely.probability - 0.7 / 0.9).abs() < 1e-12, "{likely:?}");
    assert!((likely.coverage - 0.9).abs() < 1e-12, "{likely:?}");
    let no = reply(&judge, "Is it blue?").unwrap();
    assert_eq!(
        (no.text.as_str(), no.yes.unwrap().probability),
        ("no", 0.25)
    );

    let body: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    let content = &body["messages"][0]["content"];
    assert_eq!(content[0]["text"], format!("{PROMPT}Is it red?"));
    let uri = content[1]["image_url"]["url"].as_str().unwrap();
    let data = STANDARD
        .decode(uri.strip_prefix("data:image/png;base64,").unwrap())
        .unwrap();
    assert_eq!(image::load_from_memory(&data).unwrap().into_rgb8(), red());
    assert_eq!(body["temperature"], 0.0);
    assert_eq!(
        (&body["max_tokens"], &body["model"]),
        (&json!(20), &json!("seer"))
    );
    assert_eq!(
        (&body["logprobs"], &body["top_logprobs"]),
        (&json!(true), &json!(20))
    );

    let jpeg = judge.with_format(PictureFormat::Jpeg(95)).unwrap();
    assert_eq!(reply(&jpeg, "Is it red?").unwrap().text, "Yes.");
    assert!(server.seen()[2].body.contains("data:image/jpeg;base64,"));
    let error = jpeg.with_format(PictureFormat::Jpeg(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "JPEG quality: expected 1 to 100, found 0"
    );
}

#[test]
fn a_prompt_is_scored_by_how_likely_its_picture_shows_it() {
    let prompt = |id: &str, text: &str, category: Option<&str>| StudyPrompt {
        id: id.to_owned(),
        text: text.to_owned(),
        category: category.map(str::to_owned),
    };
    let prompts = [
        prompt("1", "a dog", Some("animals")),
        prompt("2", "a \"cat\"", None),
        prompt("3", "a bird", Some("animals")),
    ];
    let server = Server::answering(|seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        match body["messages"][0]["content"][0]["text"].as_str().unwrap() {
            "Does this figure show \"a dog\"? Please answer Yes or No." => {
                says("Yes", &[("Yes", 0.6), ("No", 0.2)])
            }
            "Does this figure show \"a \"cat\"\"? Please answer Yes or No." => {
                says("No", &[("No", 0.75), ("Yes", 0.25)])
            }
            _ => says("Yes", &[]),
        }
    });
    let judge = ChatVqa::new(client(server.url()), ChatPrompt::Figure);
    let images = |_: &str| Ok(red());
    let bootstrap = Bootstrap::default();
    let go_on = |_| ControlFlow::Continue(());
    let result = vqa_score("painter", &prompts, &images, &judge, &bootstrap, go_on).unwrap();
    assert_eq!(
        (result.prompts, result.unscored, result.vqa.as_str()),
        (3, 1, "seer")
    );
    assert!((result.overall.mean - 0.5).abs() < 1e-12, "{result:?}");
    assert!((result.coverage - 0.9).abs() < 1e-12, "{result:?}");
    assert_eq!(
        (
            result.overall.clusters,
            result.by_category["animals"].clusters
        ),
        (2, 1)
    );
    assert_eq!(
        (result.items[2].yes, result.items[2].answer.as_deref()),
        (None, Some("Yes"))
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vqascore.json");
    result.save(&path).unwrap();
    assert_eq!(VqaScoreResult::load(&path).unwrap(), result);
    let silent = ChatVqa::new(client(server.url()), ChatPrompt::Plain);
    let error = vqa_score("painter", &prompts, &images, &silent, &bootstrap, go_on).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no probabilities, which the judge does not tell: nothing to evaluate"
    );
}

#[test]
fn a_question_as_it_is_has_no_yes() {
    let server = Server::scripted(vec![says("a boat", &[("a", 0.9)])]);
    let judge = ChatVqa::new(client(server.url()), ChatPrompt::Plain);
    let given = reply(&judge, "What is there?").unwrap();
    assert_eq!((given.text.as_str(), given.yes), ("a boat", None));
    let body: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    assert_eq!(body["messages"][0]["content"][0]["text"], "What is there?");
    assert!(body.get("logprobs").is_none());
}

#[test]
fn passing_failures_are_tried_again() {
    for act in [
        status("429 Too Many Requests"),
        status("500 Internal Server Error"),
        Act::Hang,
    ] {
        let server = Server::scripted(vec![act, says("yes", &[])]);
        let given = reply(&judge(server.url()), "Is it red?").unwrap();
        assert_eq!(given, Reply::from("yes"));
        assert_eq!(server.seen().len(), 2);
    }
}

#[test]
fn log_probabilities_that_are_refused_are_not_asked_for_again() {
    let server = Server::answering(|seen| {
        if seen.body.contains("logprobs") {
            status("400 Bad Request")
        } else {
            says("no", &[])
        }
    });
    let judge = judge(server.url());
    for _ in 0..2 {
        assert_eq!(reply(&judge, "Is it red?").unwrap(), Reply::from("no"));
    }
    let asked: Vec<bool> = server
        .seen()
        .iter()
        .map(|seen| seen.body.contains("logprobs"))
        .collect();
    assert_eq!(asked, [true, false, false]);
    // A request that is bad without them, too, says nothing about them.
    let server = Server::scripted(vec![
        status("400 Bad Request"),
        status("400 Bad Request"),
        says("yes", &[]),
    ]);
    let judge = self::judge(server.url());
    let given = reply(&judge, "Is it red?").unwrap();
    assert!(given.failure.unwrap().contains("status 400"), "not told");
    reply(&judge, "Is it red?").unwrap();
    assert!(server.seen()[2].body.contains("logprobs"));
}

#[test]
fn what_is_no_answer_says_why() {
    let choice = |content: Value, reason: &str| {
        ok(&json!({"choices": [{"message": {"content": content}, "finish_reason": reason}]}))
    };
    for (act, reason) in [
        (choice(json!(" \n"), "stop"), "the answer is empty"),
        (
            choice(json!(""), "length"),
            "its 20 tokens were used up before the first word",
        ),
        (
            choice(json!(""), "content_filter"),
            "the server's content filter kept it",
        ),
        (ok(&json!({"choices": []})), "`choices` is empty"),
        (Act::answer("200 OK", "", b"<html>"), "it is not JSON"),
        (
            status("500 Internal Server Error"),
            "status 500 after 3 attempt(s): not today",
        ),
        (
            status("413 Payload Too Large"),
            "status 413 after 1 attempt(s): not today",
        ),
    ] {
        let server = Server::scripted(vec![act]);
        let given = reply(&judge(server.url()), "Is it red?").unwrap();
        assert!(!given.is_answered() && given.yes.is_none());
        let failure = given.failure.unwrap();
        assert!(failure.contains(reason), "{failure}");
    }
}

#[test]
fn what_concerns_all_questions_ends_the_asking() {
    for refused in ["401 Unauthorized", "404 Not Found"] {
        let server = Server::scripted(vec![status(refused)]);
        let error = reply(&judge(server.url()), "Is it red?")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("VQA model seer failed: "), "{error}");
        assert!(
            error.contains(&refused[..3]) && error.contains("not today"),
            "{error}"
        );
        assert_eq!(server.seen().len(), 1);
    }
    // Nobody listens here.
    let judge = judge("http://127.0.0.1:9");
    for _ in 0..9 {
        let failure = reply(&judge, "Is it red?").unwrap().failure.unwrap();
        assert!(
            failure.contains("no answer from http://127.0.0.1:9/v1"),
            "{failure}"
        );
    }
    let error = reply(&judge, "Is it red?").unwrap_err().to_string();
    let expected = "VQA model seer failed: 10 requests in a row got no answer; the last: no answer from http://127.0.0.1:9";
    assert!(error.starts_with(expected), "{error}");
}

/// Six red pictures, each asked about three times.
fn questions() -> QuestionSet {
    let colours = [(1, "red"), (2, "blue"), (3, "reddish")];
    let all = (0..6).flat_map(|item| {
        colours.iter().map(move |(id, colour)| DsgQuestion {
            item_id: format!("a_{item}"),
            text: format!("thing {item}"),
            keywords: String::new(),
            proposition_id: *id,
            dependency: Vec::new(),
            category_broad: "attribute".to_owned(),
            category_detailed: "color".to_owned(),
            tuple: String::new(),
            question: format!("Is thing {item} {colour}?"),
        })
    });
    QuestionSet::new(all.collect()).unwrap()
}

fn scored(vqa: &dyn Vqa) -> Result<EvalResult, EvalError> {
    let options = EvalOptions {
        answer_match: AnswerMatch::Chat,
        bootstrap: Bootstrap {
            resamples: 100,
            ..Bootstrap::default()
        },
        ..EvalOptions::default()
    };
    let images = |_: &str| Ok(red());
    evaluate("painter", &questions(), &images, vqa, &options, |_| {
        ControlFlow::Continue(())
    })
}

#[test]
fn a_second_run_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.jsonl");
    let server = Server::answering(sees);
    let judge = judge(server.url());
    let cached = CachedVqa::open(&judge, &path).unwrap();
    let first = scored(&cached).unwrap();
    assert_eq!(
        (first.questions, first.unanswered, first.unclear),
        (18, 0, 0)
    );
    assert!((first.overall.mean - 2.0 / 3.0).abs() < 1e-12);
    let soft = first.soft.unwrap();
    assert_eq!((soft.questions, soft.estimate.clusters), (18, 6));
    assert!((soft.estimate.mean - (2.0 * 0.7 / 0.9 + 0.25) / 3.0).abs() < 1e-12);
    assert!((soft.coverage - (0.9 + 0.9 + 1.0) / 3.0).abs() < 1e-12);
    assert_eq!(
        (server.seen().len(), cached.len(), cached.replayed()),
        (18, 18, 0)
    );
    drop(cached);

    let cached = CachedVqa::open(&judge, &path).unwrap();
    assert_eq!(scored(&cached).unwrap(), first);
    assert_eq!((server.seen().len(), cached.replayed()), (18, 18));
    drop(cached);
    // Other pixels, another model, other settings: another answer.
    let other = RgbImage::from_pixel(3, 5, Rgb([200, 1, 2]));
    let cached = CachedVqa::open(&judge, &path).unwrap();
    cached.answer(&other, &["Is thing 0 red?"]).unwrap();
    drop(cached);
    let jpeg = self::judge(server.url())
        .with_format(PictureFormat::Jpeg(90))
        .unwrap();
    let cached = CachedVqa::open(&jpeg, &path).unwrap();
    assert_eq!(reply(&cached, "Is thing 0 red?").unwrap().text, "Yes.");
    assert_eq!((server.seen().len(), cached.replayed()), (20, 0));
    let error = CachedVqa::open(&jpeg, &path).unwrap_err().to_string();
    assert!(
        error.ends_with("answers.jsonl is in use by another writer"),
        "{error}"
    );
}

/// Dies after so many answers.
fn mortal(answers: usize) -> Server {
    let given = AtomicUsize::new(0);
    Server::answering(move |seen| {
        if given.fetch_add(1, Ordering::SeqCst) < answers {
            sees(seen)
        } else {
            Act::Hang
        }
    })
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn killed_anywhere_it_goes_on_to_the_same_result() {
    let whole = scored(&judge(Server::answering(sees).url())).unwrap();
    for answers in [0, 4, 17] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let dying = judge(mortal(answers).url());
        let outcome = scored(&CachedVqa::open(&dying, &path).unwrap());
        // One or the other picture is left without answers, or the asking ended.
        assert!(outcome.is_err() || outcome.unwrap().unanswered > 0);
        assert_eq!(lines(&path), answers);
        // What a kill in the middle of a write leaves.
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"image\":\"01").unwrap();
        let server = Server::answering(sees);
        let judge = judge(server.url());
        let cached = CachedVqa::open(&judge, &path).unwrap();
        assert_eq!(cached.repaired_bytes(), 12);
        assert_eq!(scored(&cached).unwrap(), whole);
        assert_eq!(server.seen().len(), 18 - answers);
    }
}

#[test]
fn unanswered_questions_are_counted_and_asked_again() {
    let server = Server::answering(|seen| match question_of(seen).as_str() {
        "Is thing 1 red?" => status("413 Payload Too Large"),
        "Is thing 2 red?" => says("", &[]),
        "Is thing 3 red?" => says("I would rather not say", &[]),
        _ => sees(seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.jsonl");
    let judge = judge(server.url());
    let result = scored(&CachedVqa::open(&judge, &path).unwrap()).unwrap();
    assert_eq!(
        (result.questions, result.unanswered, result.unclear),
        (18, 2, 1)
    );
    let asked = &result.items[1].questions[0];
    assert_eq!((asked.answer.as_ref(), asked.score), (None, 0.0));
    assert!(
        asked.failure.as_ref().unwrap().contains("status 413"),
        "{asked:?}"
    );
    let file = dir.path().join("result.json");
    result.save(&file).unwrap();
    assert_eq!(EvalResult::load(&file).unwrap(), result);
    // Only what has an answer, be it a strange one, is not asked again.
    let server = Server::answering(sees);
    let judge = self::judge(server.url());
    let result = scored(&CachedVqa::open(&judge, &path).unwrap()).unwrap();
    assert_eq!((result.unanswered, result.unclear), (0, 1));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn pictures_are_asked_about_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (here, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::answering(move |seen| {
        peak.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        here.fetch_sub(1, Ordering::SeqCst);
        sees(seen)
    });
    let judge = judge(server.url());
    assert_eq!(judge.jobs(), 4);
    let result = scored(&judge).unwrap();
    assert_eq!((result.unanswered, result.items.len()), (0, 6));
    assert!((2..=4).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(now.load(Ordering::SeqCst), 0);
    // In the order of the questions, whatever came first.
    let ids: Vec<&str> = result
        .items
        .iter()
        .map(|item| item.item_id.as_str())
        .collect();
    assert_eq!(ids, ["a_0", "a_1", "a_2", "a_3", "a_4", "a_5"]);
}
