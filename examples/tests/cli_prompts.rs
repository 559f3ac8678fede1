//! `selma prompts`.

mod common;

use std::fs;

use common::Selma;
use selma_llm::{GenerationReport, read_prompts, read_rejected};

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
    assert!(selma.names().is_empty());
}
