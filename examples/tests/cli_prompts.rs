//! `selma prompts`.

mod common;

use std::fs;

use common::Selma;
use selma_http::loopback::{Act, Server};
use selma_llm::{GenerationReport, read_prompts, read_rejected};
use serde_json::{Value, json};

const MINI: &str = "prompts --mini --count 30 --skill coco --skill count_bench --out out";

#[test]
fn the_grammar_writes_prompts_for_every_skill() {
    let selma = Selma::new();
    let ended = selma.run(MINI).ok();
    assert!(ended.stderr.contains("30/30 prompts"), "{}", ended.stderr);
    for skill in ["coco", "count_bench"] {
        let prompts = read_prompts(&selma.path(&format!("out/{skill}.jsonl"))).unwrap();
        assert_eq!(prompts.len(), 30);
        assert_eq!(prompts[3].id, format!("{skill}-000003"));
        let rejected = read_rejected(&selma.path(&format!("out/{skill}.rejected.jsonl"))).unwrap();
        let report = selma.read(&format!("out/{skill}.report.json"));
        let report: GenerationReport = serde_json::from_slice(&report).unwrap();
        assert_eq!(report.kept, 30);
        assert_eq!(
            report.rejected_similar + report.rejected_long + report.duplicates,
            rejected.len()
        );
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let selma = Selma::new();
    selma.run(MINI).ok();
    let names = [
        "coco.jsonl",
        "coco.rejected.jsonl",
        "coco.report.json",
        "coco.journal.jsonl",
    ];
    let whole = names.map(|name| selma.read(&format!("out/{name}")));
    for name in &names[..3] {
        fs::remove_file(selma.path(&format!("out/{name}"))).unwrap();
    }
    // The journal as a kill in the middle of a write leaves it.
    fs::write(
        selma.path("out/coco.journal.jsonl"),
        &whole[3][..whole[3].len() / 2],
    )
    .unwrap();
    let ended = selma.run(MINI).ok();
    let dropped = "coco.journal.jsonl: a torn last line of";
    assert!(ended.stderr.contains(dropped), "{}", ended.stderr);
    for (name, whole) in names.iter().zip(whole) {
        assert_eq!(selma.read(&format!("out/{name}")), whole, "{name}");
    }
    selma
        .run(&MINI.replace("--out out", "--out other --seed 1"))
        .ok();
    assert_ne!(selma.read("other/coco.jsonl"), selma.read("out/coco.jsonl"));
}

#[test]
fn what_cannot_be_used_is_named() {
    let selma = Selma::new();
    selma.write("broken.toml", "name = \"broken\"\nsedes = []\n");
    selma.write("file", "");
    let mini = "prompts --mini --count 5 --out out --skill";
    selma
        .run(&format!("{mini} nothing"))
        .failed(&["nothing", "coco"]);
    selma
        .run(&format!("{mini} broken.toml"))
        .failed(&["broken.toml", "sedes"]);
    selma
        .run(&format!("{mini} no.toml"))
        .failed(&["no.toml", "No such file"]);
    selma
        .run(&format!("{mini} coco --skill coco"))
        .failed(&["coco", "twice"]);
    selma
        .run("prompts --mini --count 5 --out file/out")
        .failed(&["file/out"]);
    selma
        .run(&format!("{mini} coco --top-p 0"))
        .failed(&["`top_p` must be greater than 0"]);
    let llm = "prompts --count 5 --out out --model m";
    selma
        .run(&format!("{llm} --llm localhost:8000"))
        .failed(&["base_url", "http"]);
    selma
        .run(&format!(
            "{llm} --llm http://localhost:8000/v1 --api-key-env SELMA_TEST_NO_SUCH_KEY"
        ))
        .failed(&["SELMA_TEST_NO_SUCH_KEY"]);
    assert_eq!(selma.names(), ["broken.toml", "file"]);
}

#[test]
fn a_damaged_journal_is_named_and_left_as_it_is() {
    let selma = Selma::new();
    fs::create_dir(selma.path("out")).unwrap();
    fs::write(selma.path("out/coco.journal.jsonl"), "damaged\n").unwrap();
    selma
        .run("prompts --mini --count 5 --skill coco --out out")
        .failed(&["out/coco.journal.jsonl, line 1"]);
    assert_eq!(selma.read("out/coco.journal.jsonl"), b"damaged\n");
    assert!(!selma.path("out/coco.jsonl").exists());
}

#[test]
fn wrong_flags_are_explained() {
    let selma = Selma::new();
    selma
        .run("prompts --count 5 --out out")
        .misused(&["--llm", "--mini"]);
    selma
        .run("prompts --mini --llm http://a --model m --count 5 --out out")
        .misused(&["--mini", "--llm"]);
    selma
        .run("prompts --llm http://a --count 5 --out out")
        .misused(&["--model"]);
    selma
        .run("prompts --mini --count 0 --out out")
        .misused(&["--count"]);
    selma
        .run("prompts --mini --count 5 --threshold 2 --out out")
        .misused(&["--threshold"]);
    selma
        .run("prompts --mini --count 5 --temperature warm --out out")
        .misused(&["--temperature"]);
    selma
        .run("prompts --mini --count 5 --max-tokens 0 --out out")
        .misused(&["--max-tokens"]);
    assert!(selma.names().is_empty());
}

#[test]
fn answers_are_replayed_without_a_server() {
    let selma = Selma::new();
    let prompts = selma_mini_server();
    let url = format!("--llm {}/v1 --model m", prompts.url());
    let write = format!("prompts {url} --skill coco --count 5 --out out");
    selma.run(&write).ok();
    let whole = selma.read("out/coco.jsonl");
    let asked = prompts.seen().len();
    fs::remove_file(selma.path("out/coco.jsonl")).unwrap();
    let ended = selma.run(&format!("{write} --replay")).ok();
    assert_eq!(selma.read("out/coco.jsonl"), whole);
    assert_eq!(prompts.seen().len(), asked);
    assert!(ended.text().contains("distinct_2"), "{}", ended.text());
    // Another seed asks other things, which were never answered.
    selma
        .run(&format!("{write} --replay --seed 1"))
        .failed(&["coco.journal.jsonl has no answer of model 'm' to request 0"]);
    selma
        .run(&format!(
            "prompts {url} --skill coco --count 5 --out none --replay"
        ))
        .failed(&["none/coco.journal.jsonl", "No such file"]);
    assert_eq!(selma.names(), ["out"]);
    // The same server, as a file describes it.
    let toml = format!(
        "base_url = \"{}/v1\"\nmodel = \"m\"\n[price]\ninput_per_million = 1.0\noutput_per_million = 2.0\n",
        prompts.url()
    );
    selma.write("server.toml", &toml);
    let ended = selma
        .run("prompts --llm-config server.toml --skill coco --count 5 --out priced")
        .ok();
    assert_eq!(selma.read("priced/coco.jsonl"), whole);
    let cost = ended.text().lines().find(|line| line.starts_with("cost"));
    assert!(
        cost.is_some_and(|cost| !cost.ends_with('-')),
        "{}",
        ended.text()
    );
    selma.write("server.toml", toml.replace("model", "modle"));
    selma
        .run("prompts --llm-config server.toml --count 5 --out no")
        .failed(&["server.toml is no description of a server", "modle"]);
}

/// A server that writes a numbered list, each caption another one.
fn selma_mini_server() -> Server {
    let things = [
        "kite", "purse", "boat", "lamp", "goat", "drum", "fence", "piano",
    ];
    let list: String = (4..)
        .zip(things)
        .map(|(number, thing)| {
            format!(
                "{number}. A {thing} that nobody else has painted {number} times in {thing} town\n"
            )
        })
        .collect();
    let answer = json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": list}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50},
    });
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    Server::scripted(vec![Act::Send((head + &body).into_bytes())])
}

#[test]
fn sampling_is_chosen_by_flags() {
    let selma = Selma::new();
    let server = selma_mini_server();
    let write = format!(
        "prompts --llm {}/v1 --model m --skill coco --count 5",
        server.url()
    );
    selma
        .run(&format!(
            "{write} --out out --temperature 0.5 --top-p 0.9 --max-tokens 700"
        ))
        .ok();
    let asked: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    assert_eq!(asked["temperature"], 0.5);
    assert_eq!(asked["top_p"], 0.9);
    assert_eq!(asked["max_tokens"], 700);
    // The server has eight prompts and no more.
    selma
        .run(
            &format!("{write} --out more --max-stalled-requests 2")
                .replace("--count 5", "--count 9"),
        )
        .failed(&["coco", "stalled at 8 of 9 prompts", "the last 2 of 3"]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let selma = Selma::new();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    selma.write(
        "server.toml",
        format!(
            "base_url = \"http://{address}/v1\"\nmodel = \"m\"\nmax_retries = 1\nbackoff_s = 0.01\n"
        ),
    );
    selma
        .run("prompts --llm-config server.toml --skill coco --count 5 --out out")
        .failed(&[
            "no answer from http://",
            &address.to_string(),
            "2 attempt(s)",
        ]);
    assert!(!selma.path("out/coco.jsonl").exists());
}

/// A server that repeats the key in all it says: nobody else does.
#[test]
fn the_key_is_in_no_file_and_on_no_screen() {
    const KEY: &str = "sk-very-secret-0123456789";
    let selma = Selma::new();
    let list =
        format!("4. A boat with a {KEY} flag.\n5. The boat with a {KEY} flag.\n6. A {KEY} kite.\n");
    let answer = json!({
        "model": KEY,
        "choices": [{"message": {"role": "assistant", "content": list}, "finish_reason": KEY}],
    });
    let wrong = Act::answer("401 Unauthorized", "", format!("bad key {KEY}").as_bytes());
    let good = Act::answer("200 OK", "", answer.to_string().as_bytes());
    let server = Server::scripted(vec![wrong, good]);
    let write = format!(
        "prompts --llm {}/v1 --model m --api-key-env SELMA_TEST_KEY --skill coco --count 2 --out out",
        server.url()
    );
    for code in [1, 0] {
        let mut command = selma.command(&write);
        let ended = common::Ended::of(command.env("SELMA_TEST_KEY", KEY).output().unwrap());
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let shown = format!("{}{}", ended.text(), ended.stderr);
        assert!(!shown.contains("sk-very"), "{shown}");
    }
    let mut files = 0;
    for entry in fs::read_dir(selma.path("out")).unwrap() {
        let written = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!written.contains("sk-very"), "{written}");
        files += 1;
    }
    assert_eq!(files, 4);
    assert!(
        String::from_utf8(selma.read("out/coco.jsonl"))
            .unwrap()
            .contains("[key]")
    );
    assert!(server.seen().iter().all(|seen| seen.head.contains(KEY)));
}

#[test]
fn strategies_and_limits_are_chosen_by_flags() {
    let selma = Selma::new();
    let server = selma_mini_server();
    let write = format!(
        "prompts --llm {}/v1 --model m --skill coco --count 5",
        server.url()
    );
    selma.write("block.txt", "piano\nlamp\n");
    selma
        .run(&format!(
            "{write} --out out --strategy taxonomy --block-list block.txt"
        ))
        .ok();
    let asked = server.seen();
    assert!(asked[0].body.contains("topic"), "{}", asked[0].body);
    let kept = String::from_utf8(selma.read("out/coco.jsonl")).unwrap();
    assert!(!kept.contains("lamp") && kept.contains("goat"), "{kept}");
    selma
        .run(&format!("{write} --out out --strategy guess"))
        .misused(&["--strategy", "selma-official"]);
    selma.write("block.txt", "a\n\u{1}\n");
    selma
        .run(&format!("{write} --out out --block-list missing.txt"))
        .failed(&["missing.txt"]);
}

#[test]
fn folders_of_prompts_are_set_side_by_side_and_looked_at() {
    let selma = Selma::new();
    for (seed, out) in [(0, "one"), (1, "two")] {
        selma
            .run(&format!(
                "prompts --mini --count 12 --skill coco --seed {seed} --out {out}"
            ))
            .ok();
    }
    let ended = selma.run("prompts compare one two").ok();
    let head = ended.text().lines().nth(1).unwrap();
    assert!(
        head.contains("one") && head.contains("two"),
        "{}",
        ended.text()
    );
    assert!(ended.text().contains("coverage.color"));
    let told = selma.run("prompts compare one two --json").ok();
    let told: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(told["coco"][1]["prompts"], 12);
    fs::create_dir(selma.path("people")).unwrap();
    selma.write(
        "people/coco.jsonl",
        "{\"id\":\"coco-000000\",\"skill\":\"coco\",\"text\":\"An old man and his daughter by Greg Rutkowski\"}\n",
    );
    let ended = selma.run("prompts bias people --list").ok();
    for part in [
        "male",
        "daughter",
        "named_person",
        "greg rutkowski",
        "coco-000000",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    selma.run("prompts bias people --json").ok();
    selma
        .run("prompts compare one nowhere")
        .failed(&["nowhere"]);
    selma.run("prompts").misused(&["--count"]);
}

#[test]
fn skills_are_listed_and_shown() {
    let selma = Selma::new();
    let ended = selma.run("skills").ok();
    for name in ["coco", "whoops", "midjourney", "all"] {
        assert!(
            ended.text().lines().any(|line| line.starts_with(name)),
            "{name}"
        );
    }
    // What is shown can be used as it is.
    let shown = selma.run("skills coco").ok();
    selma.write("mine.toml", shown.text());
    let described = selma.run("skills mine.toml").ok();
    assert!(
        described.text().starts_with("coco: "),
        "{}",
        described.text()
    );
    selma.run("skills cocoa").failed(&["cocoa", "coco"]);
    selma.write("bad.toml", "name = \"x\"\n");
    selma.run("skills bad.toml").failed(&["bad.toml"]);
}
