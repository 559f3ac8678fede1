//! `selma eval score`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::Selma;

/// Where the tiny scorers and their pictures lie.
fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/selma-diffusion/tests/fixtures/scorers")
        .canonicalize()
        .unwrap()
}

/// Four pictures of two prompts in a folder of the program's.
fn pictures(selma: &Selma) {
    let folder = selma.path("pictures");
    fs::create_dir(&folder).unwrap();
    let mut rows = String::new();
    for (name, text) in [("tall", "a"), ("wide", "a"), ("odd", "b"), ("grey", "b")] {
        let from = fixtures().join(format!("pictures/{name}.png"));
        fs::copy(from, folder.join(format!("{name}.png"))).unwrap();
        rows += &format!("{{\"file_name\": \"{name}.png\", \"text\": \"{text} cat\"}}\n");
    }
    fs::write(folder.join("metadata.jsonl"), rows).unwrap();
}

fn score(rest: &str) -> String {
    format!("eval score --images pictures {rest}").replace("FIX", fixtures().to_str().unwrap())
}

#[test]
fn each_scorer_writes_scores_that_rank_pairs() {
    let selma = Selma::new();
    pictures(&selma);
    for (scorer, weights) in [
        ("clip", "FIX/clip"),
        ("pickscore", "FIX/clip"),
        ("hps", "FIX/hps/HPS_v2_compressed.pt"),
        ("hps21", "FIX/hps"),
        ("aesthetic", "FIX/clip --head FIX/head/improved.pth"),
        ("imagereward", "FIX/../blip/reward"),
    ] {
        let weights = match scorer {
            // A folder with the file under OpenCLIP's own name.
            "hps21" => {
                fs::create_dir(selma.path("open")).unwrap();
                for entry in fs::read_dir(fixtures().join("hps")).unwrap() {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    let name = name.replace("HPS_v2_compressed.pt", "open_clip_pytorch_model.bin");
                    fs::copy(entry.path(), selma.path("open").join(name)).unwrap();
                }
                "open"
            }
            _ => weights,
        };
        let command = score(&format!("--scorer {scorer} --weights {weights}"));
        let ended = selma
            .run(&format!("{command} --batch-size 3 --out {scorer}.jsonl"))
            .ok();
        for part in [scorer, "95% interval", "[", "4", "2"] {
            assert!(ended.text().contains(part), "{part}: {}", ended.text());
        }
        let rows = String::from_utf8(selma.read(&format!("{scorer}.jsonl"))).unwrap();
        assert_eq!(rows.lines().count(), 4);
        assert!(rows.contains(&format!("\"scorer\":\"{scorer}\"")), "{rows}");
    }
    let pairs = "pairs --data pictures --scores pickscore.jsonl --scorer pickscore --out p.jsonl";
    let ended = selma.run(pairs).ok();
    assert!(
        ended.stderr.contains("2 pairs of 2 prompts"),
        "{}",
        ended.stderr
    );
    let hps = String::from_utf8(selma.read("hps.jsonl")).unwrap();
    let hps21 = String::from_utf8(selma.read("hps21.jsonl")).unwrap();
    assert_eq!(hps21, hps.replace("\"hps\"", "\"hps21\""));
    let named = score("--scorer clip --weights FIX/clip --name mine --out mine.jsonl");
    selma.run(&named).ok();
    let rows = String::from_utf8(selma.read("mine.jsonl")).unwrap();
    assert!(rows.contains("\"mine\""), "{rows}");
}

#[test]
fn what_cannot_be_scored_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    pictures(&selma);
    selma
        .run(&score("--scorer aesthetic --weights FIX/clip"))
        .misused(&["--head"]);
    selma
        .run(&score("--scorer taste --weights FIX/clip"))
        .misused(&["taste", "pickscore"]);
    let out = "--out s.jsonl";
    let clip = "--scorer clip --weights FIX/clip";
    selma
        .run(&score(&format!("{clip} --head FIX/head/linear.pth {out}")))
        .failed(&["--head", "aesthetic"]);
    selma
        .run(&score(&format!("{clip} --out no/s.jsonl")))
        .failed(&["cannot write no/s.jsonl"]);
    selma
        .run(&score(&format!("--scorer hps --weights no.pt {out}")))
        .failed(&["no.pt"]);
    selma
        .run(&score(&format!("--scorer clip --weights FIX/head {out}")))
        .failed(&["head", "found none"]);
    let odd = selma.path("pictures/odd.png");
    let whole = fs::read(&odd).unwrap();
    fs::write(&odd, &whole[..whole.len() / 2]).unwrap();
    selma
        .run(&score(&format!("{clip} {out}")))
        .failed(&["odd.png"]);
    assert_eq!(selma.names(), ["pictures"]);
}
