//! `selma run` in parts, and recipes that train and merge more than one expert a skill.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;

use common::Ended;
use common::runs::{RECIPE, assert_same_files, world};
use serde_json::Value;

/// More to train and to merge than experts; another model draws.
const MORE: &str = r#"
[[trainings]]
name = "mixed"
skills = ["coco"]
settings = { rank = 1, steps = 2 }

[[trainings]]
name = "truth"
each = true
data = "truth"

[[trainings]]
name = "best"
data = { best = 0.0 }
settings = { steps = 2 }

[[trainings]]
name = "elsewhere"
data = { folder = "whole/images/coco" }
settings = { steps = 2 }

[[mixtures]]
name = "router"
of = ["coco", "truth"]
mixing = { top_k = 2 }
settings = { steps = 2, learning_rate = 1e-3 }

[[merges]]
name = "truth"
of = ["truth"]
method = "mean"
"#;

fn recipe() -> String {
    RECIPE.replace(
        "[images]\n",
        "[images]\nmodel = \"teacher\"\nper_prompt = 2\n",
    ) + MORE
}

#[test]
fn jobs_side_by_side_make_the_files_of_a_run() {
    let selma = world();
    common::copy_folder(&selma.path("model"), &selma.path("teacher"));
    selma.write("recipe.toml", recipe());
    selma.run("run recipe.toml --out whole").ok();
    let plan = selma.run("run recipe.toml --out parts --plan").ok();
    assert!(!selma.path("parts").exists());
    let jobs: Vec<Value> = serde_json::from_slice(&plan.stdout).unwrap();
    let ids: Vec<&str> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
    for id in [
        "prompts/coco",
        "train/truth",
        "train/coco-truth",
        "merge/truth",
        "eval/merged-truth",
    ] {
        assert_eq!(ids.contains(&id), id != "train/truth", "{id}");
    }
    // As soon as what they need is there, two at once.
    let mut done: Vec<&str> = Vec::new();
    while done.len() < jobs.len() {
        let ready = jobs.iter().filter(|job| {
            let needs = job["needs"].as_array().unwrap();
            let is_done = |id: &Value| done.contains(&id.as_str().unwrap());
            !is_done(&job["id"]) && needs.iter().all(is_done)
        });
        let ready: Vec<&Value> = ready.take(2).collect();
        assert!(!ready.is_empty(), "{done:?}");
        let started = ready.iter().map(|job| {
            let command = job["command"].as_array().unwrap();
            let words: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
            assert_eq!(words[0], "selma");
            let mut command = selma.command(&words[1..].join(" "));
            command.stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        });
        let started: Vec<std::process::Child> = started.collect();
        for child in started {
            Ended::of(child.wait_with_output().unwrap()).ok();
        }
        done.extend(ready.iter().map(|job| job["id"].as_str().unwrap()));
    }
    let plan = selma.run("run recipe.toml --out parts --plan").ok();
    let jobs: Vec<Value> = serde_json::from_slice(&plan.stdout).unwrap();
    assert!(jobs.iter().all(|job| job["finished"] == true));
    fs::remove_dir_all(selma.path("parts/locks")).unwrap();
    assert_same_files(&selma.path("whole"), &selma.path("parts"));
    // The pictures of the truth are a data set like others.
    assert!(selma.path("whole/truth/coco/metadata.jsonl").is_file());
}

#[test]
fn a_job_that_cannot_be_done_says_why() {
    let selma = world();
    let run = |args: &str| selma.run(&format!("run recipe.toml --out out {args}"));
    run("--job train/dogs").failed(&["job", "train/coco", "train/dogs"]);
    run("--job train/coco").failed(&["images/coco", "stage `images` first"]);
    run("--job train/coco --stage train").misused(&["--stage"]);
    // Another process does it already, or does all.
    let lock = fs::File::open(selma.path("out/locks/prompts-coco.lock"));
    assert!(lock.is_err());
    run("--job prompts/coco").ok();
    let lock = fs::File::open(selma.path("out/locks/prompts-coco.lock")).unwrap();
    lock.lock().unwrap();
    run("--job prompts/coco").failed(&["in use by another process"]);
    run("--job prompts/count_bench").ok();
    let recipe = fs::File::open(selma.path("out/recipe.json")).unwrap();
    recipe.lock_shared().unwrap();
    run("--job images/coco").ok();
    run("").failed(&["in use by another process"]);
    drop(recipe);
    let recipe = fs::File::open(selma.path("out/recipe.json")).unwrap();
    recipe.lock().unwrap();
    run("--job images/count_bench").failed(&["in use by another process"]);
}

#[test]
fn the_merged_model_of_a_round_is_the_base_of_the_next() {
    let selma = world();
    selma.write("recipe.toml", RECIPE.to_owned() + "\n[rounds]\ncount = 2\n");
    selma
        .run("run recipe.toml --out out --stage images")
        .failed(&["--round"]);
    selma
        .run("run recipe.toml --out out --round 3")
        .failed(&["2 rounds", "round 3"]);
    selma
        .run("run recipe.toml --out out --round 2 --stage images")
        .failed(&["round-1/model"]);
    let ended = selma.run("run recipe.toml --out out").ok();
    assert!(
        ended.text().contains("vs the first base"),
        "{}",
        ended.text()
    );
    // By hand: the second round is a run of the first one's merged model, with the same prompts.
    selma
        .run("fuse --model model --out fused out/round-1/merged/mean.safetensors")
        .ok();
    assert_same_files(&selma.path("fused"), &selma.path("out/round-1/model"));
    let again = RECIPE.replace("name = \"tiny\"", "name = \"again\"");
    selma.write(
        "again.toml",
        again.replace("model = \"model\"", "model = \"fused\""),
    );
    selma.run("run again.toml --out again").ok();
    for part in ["prompts", "merged"] {
        let ours = selma.path("out/round-2").join(part);
        assert_same_files(&selma.path("again").join(part), &ours);
    }
    // Part by part, and a second time: nothing is done again.
    let plan = selma.run("run recipe.toml --out out --round 2 --plan").ok();
    let jobs: Vec<Value> = serde_json::from_slice(&plan.stdout).unwrap();
    assert!(jobs.iter().all(|job| job["finished"] == true));
    let command = jobs[0]["command"].as_array().unwrap();
    assert!(command.contains(&Value::from("--round")), "{command:?}");
    selma.run("run recipe.toml --out out").ok();
    let wrong = RECIPE.to_owned() + "\n[rounds]\ncount = 2\ncarry = \"median\"\n";
    selma.write("wrong.toml", wrong);
    selma
        .run("run wrong.toml")
        .failed(&["rounds.carry", "median"]);
}
