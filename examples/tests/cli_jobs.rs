//! `selma run` in parts, and recipes that train and merge more than one expert a skill.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::runs::{RECIPE, assert_same_files, world};
use common::{Ended, Selma, fixture};
use selma_lora::Adapter;
use serde_json::Value;
use toml::Table;

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
        "eval/teacher",
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

/// A world with another model, which draws other pictures.
fn world_with_teacher() -> Selma {
    let selma = world();
    let teacher = fixture("selma-diffusion/tests/fixtures/tiny-sd-v");
    common::copy_folder(Path::new(&teacher), &selma.path("teacher"));
    let config = "teacher/unet/config.json";
    let text = String::from_utf8(selma.read(config)).unwrap();
    selma.write(
        config,
        text.replace("\"sample_size\": 8", "\"sample_size\": 32"),
    );
    selma
}

#[test]
fn a_weak_model_teaches_a_strong_one_and_is_measured_beside_it() {
    let selma = world_with_teacher();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/mini-weak-to-strong.toml");
    let plan = selma.run_with("run --plan", &[path.to_str().unwrap()]).ok();
    let jobs: Vec<Value> = serde_json::from_slice(&plan.stdout).unwrap();
    for id in ["eval/teacher", "train/whoops-best", "merge/mean"] {
        assert!(jobs.iter().any(|job| job["id"] == id), "{id}");
    }
    // The recipe with tiny models and tiny numbers, and everything else as it is. Nothing that such models draw is faultless.
    let mut recipe: Table = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let tiny: Table = toml::from_str(RECIPE).unwrap();
    recipe.insert("model".to_owned(), "model".into());
    for section in ["prompts", "images", "train", "eval"] {
        let values = tiny[section].as_table().unwrap().clone();
        recipe[section].as_table_mut().unwrap().extend(values);
    }
    let images = recipe["images"].as_table_mut().unwrap();
    images.insert("model".to_owned(), "teacher".into());
    for training in recipe["trainings"].as_array_mut().unwrap() {
        let training = training.as_table_mut().unwrap();
        assert_eq!(training["data"]["best"].as_float(), Some(1.0));
        training.insert("data".to_owned(), "own".into());
    }
    selma.write("recipe.toml", toml::to_string(&recipe).unwrap());
    let ended = selma.run("run recipe.toml --out out").ok();
    assert!(ended.text().contains("teacher"), "{}", ended.text());
    let text = |path: &str| String::from_utf8(selma.read(path)).unwrap();
    let report = text("out/report/report.md");
    assert!(report.contains("called teacher is teacher"), "{report}");
    // The same prompts from the same noise, by two models, of which each is named.
    let drawn = |model: &str| text(&format!("out/eval/{model}/validation-g1/metadata.jsonl"));
    let field = |text: &str, name: &str| -> Vec<Value> {
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.map(|row: Value| row["provenance"][name].clone())
            .collect()
    };
    let (base, teacher) = (drawn("base"), drawn("teacher"));
    for (name, same) in [("prompt_id", true), ("seed", true), ("model", false)] {
        let (base, teacher) = (field(&base, name), field(&teacher, name));
        assert_eq!(base == teacher, same, "{name}: {base:?}");
    }
    let taught = field(&text("out/images/coco/metadata.jsonl"), "model_hash");
    assert_eq!(taught[0], field(&teacher, "model_hash")[0]);
    assert_ne!(taught[0], field(&base, "model_hash")[0]);
}

#[test]
fn prompts_are_held_back_to_watch_trainings_by() {
    let selma = world();
    let more = MORE.replace("whole/images/coco", "plain/images/coco");
    let recipe = RECIPE.replace("rank = 2", "rank = 2\nlearning_rate = 0.1");
    selma.write("plain.toml", recipe.clone() + &more);
    selma.run("run plain.toml --out plain").ok();
    let settings = "[train]\nvalidation = 1\npick = \"best\"";
    let recipe = recipe.replace("[train]", settings) + &more;
    selma.write("watched.toml", recipe);
    selma.run("run watched.toml --out watched").ok();
    let json = |path: &str| serde_json::from_slice::<Value>(&selma.read(path)).unwrap();
    for name in ["coco", "coco-truth", "mixed", "best", "elsewhere"] {
        let losses = selma.read(&format!("watched/experts/{name}/validation.jsonl"));
        let losses = String::from_utf8(losses).unwrap();
        let losses = losses
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let losses: Vec<Value> = losses.collect();
        let loss = |line: &&Value| line["loss"].as_f64().unwrap();
        let best = losses.iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
        let adapter = format!("watched/experts/{name}/adapter.safetensors");
        let adapter = Adapter::load(selma.path(&adapter)).unwrap();
        let best = best.unwrap()["step"].to_string();
        assert_eq!(adapter.metadata["selma.steps"], best, "{name}");
        assert_eq!(adapter.metadata["selma.pick"], "best", "{name}");
        let training = |run: &str| json(&format!("{run}/experts/{name}/training.json"));
        let (plain, watched) = (training("plain"), training("watched"));
        assert_ne!(plain["data_sha256"], watched["data_sha256"], "{name}");
        assert!(watched["validation_sha256"].is_string(), "{name}");
        assert!(plain.get("validation_sha256").is_none(), "{name}");
    }
    assert!(
        selma
            .path("watched/experts/router/validation.jsonl")
            .is_file()
    );
    // Drawn, and not trained on: prompts and pictures are those of a run that holds nothing back.
    for part in ["prompts", "images"] {
        assert_same_files(
            &selma.path("plain").join(part),
            &selma.path("watched").join(part),
        );
    }
    let report = String::from_utf8(selma.read("watched/report/report.md")).unwrap();
    assert!(report.contains("1 prompts were not trained"), "{report}");
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
