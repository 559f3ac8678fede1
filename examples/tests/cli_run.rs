//! `selma run` and the sub-commands that are its stages, on a model of a few thousand parameters.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::runs::{RECIPE, assert_same_files, files, world};
use common::{Ended, Selma};
use selma_dataset::Dataset;

/// Starts the run and kills it as soon as there is another file below `part`; whether it was killed.
fn kill_at(selma: &Selma, part: &str) -> bool {
    let part = selma.path("killed").join(part);
    let before = files(&part).len();
    let mut child = selma
        .command("run recipe.toml --out killed")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{part:?}: {status}");
            return false;
        }
        if files(&part).len() > before {
            // SIGKILL: the program gets no chance to tidy up.
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "nothing came to {part:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_that_is_killed_in_every_stage_makes_the_same_files() {
    let selma = world();
    let ended = selma.run("run recipe.toml --out whole").ok();
    for part in [
        "base",
        "coco",
        "count_bench",
        "merged-mean",
        "merged-ties-0.5",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    for part in [
        "prompts", "images", "images", "experts", "experts", "merged", "eval", "eval", "report",
    ] {
        // A short stage may be over before the kill; what it made is then taken away, and it is tried again.
        let killed = (0..20).any(|_| {
            kill_at(&selma, part) || {
                fs::remove_dir_all(selma.path("killed").join(part)).unwrap();
                false
            }
        });
        assert!(killed, "{part} was never killed");
    }
    let resumed = selma.run("run recipe.toml --out killed --resume").ok();
    assert_eq!(resumed.text(), ended.text());
    assert_same_files(&selma.path("whole"), &selma.path("killed"));
}

/// On a disk that takes files up to a size, smaller than what some stage writes.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_in_any_stage_is_named_and_the_run_goes_on_from_there() {
    let selma = world();
    selma.run("run recipe.toml --out whole").ok();
    let mut stopped = BTreeSet::new();
    for kib in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128] {
        let program = env!("CARGO_BIN_EXE_selma");
        let script =
            format!("trap '' XFSZ; ulimit -f {kib}; exec {program} run recipe.toml --out full");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(selma.path(""));
        let ended = Ended::of(shell.output().unwrap());
        if ended.code == Some(0) {
            break;
        }
        let ended = ended.failed(&["cannot", "full", "File too large"]);
        let parts = [
            "prompts/", "images/", "cache/", "experts/", "eval/", "report/",
        ];
        let message = &ended.stderr[ended.stderr.rfind("error: ").unwrap()..];
        stopped.extend(parts.into_iter().filter(|part| message.contains(part)));
    }
    assert!(stopped.len() >= 3, "stopped in {stopped:?} alone");
    selma.run("run recipe.toml --out full").ok();
    assert_same_files(&selma.path("whole"), &selma.path("full"));
}

#[test]
fn stages_run_alone_in_their_order() {
    let selma = world();
    let run = "run recipe.toml --out out --stage";
    selma
        .run(&format!("{run} images"))
        .failed(&["prompts", "run the stage"]);
    selma.run(&format!("{run} prompts")).ok();
    for stage in ["train", "merge", "eval"] {
        selma
            .run(&format!("{run} {stage}"))
            .failed(&["run the stage"]);
    }
    assert!(selma.path("out/prompts/coco.jsonl").is_file());
    assert!(!selma.path("out/images").exists());
    selma.run("report out").failed(&["eval"]);
    selma
        .run(&format!("{run} drawing"))
        .misused(&["prompts, images, train, merge, eval, report"]);
}

#[test]
fn runs_with_several_seeds_are_set_side_by_side() {
    let selma = world();
    for (name, seed) in [("one", 7), ("two", 8)] {
        let seed = format!("seed = {seed}");
        let recipe = RECIPE.replace("tiny", name).replace("seed = 7", &seed);
        selma.write(&format!("{name}.toml"), recipe);
        selma.run(&format!("run {name}.toml --out {name}")).ok();
    }
    let ended = selma.run("report one two").ok();
    let table = ended.text();
    let lines: Vec<&str> = table.trim().lines().collect();
    assert_eq!(lines[0], "| model | one | two | together | vs base |");
    let names: Vec<&str> = lines[2..]
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(
        names,
        [
            "base",
            "coco",
            "count\\_bench",
            "merged-mean",
            "merged-ties-0.5"
        ]
    );
    assert_eq!(lines[3].matches("p\u{a0}=").count(), 3, "{table}");

    selma.run("report one one").failed(&["one"]);
    selma.write(
        "other.toml",
        RECIPE
            .replace("rank = 2", "rank = 3")
            .replace("seed = 7", "seed = 9"),
    );
    selma.run("run other.toml --out other --stage prompts").ok();
    selma.run("report one other").failed(&["others in tiny"]);
    let seed = RECIPE.replace("tiny", "three");
    selma.write("three.toml", seed);
    selma.run("run three.toml --out three --stage prompts").ok();
    selma.run("report one three").failed(&["seed", "7 twice"]);
    selma.run("report").misused(&["DIR"]);
}

#[test]
fn a_recipe_that_cannot_be_used_is_named() {
    let selma = world();
    let with = |name: &str, from: &str, to: &str| {
        assert!(RECIPE.contains(from));
        selma.write(name, RECIPE.replace(from, to));
        selma.run(&format!("run {name} --out out"))
    };
    with("key.toml", "seed = 7", "seed = 7\nsead = 8").failed(&["key.toml", "sead"]);
    with("inner.toml", "rank = 2", "rank = 2\nrnak = 3").failed(&["inner.toml", "rnak"]);
    with("prompt.toml", "count = 4", "count = 4\ncuont = 3").failed(&["prompt.toml", "cuont"]);
    with("type.toml", "rank = 2", "rank = \"two\"").failed(&["type.toml", "in `rank`", "two"]);
    with("value.toml", "steps = 5", "steps = 0").failed(&["steps", "0"]);
    with("merge.toml", "density = 0.5", "densty = 0.5").failed(&["merge.toml", "densty"]);
    with("option.toml", "peft_ties", "sum").failed(&["merge.methods, ties-0.5", "density"]);
    with("twice.toml", "ties-0.5", "mean").failed(&["merge.methods", "mean twice"]);
    with("weights.toml", "[1.0, 0.5]", "[1.0]").failed(&["ties-0.5", "one for each skill"]);
    with("seed.toml", "rank = 2", "rank = 2\nseed = 3").failed(&["train.seed", "found 3"]);
    let every = "checkpoint_every = 2";
    let watched = |settings: &str| format!("{every}\n{settings}");
    with("all.toml", every, &watched("validation = 4"))
        .failed(&["train.validation", "less than prompts.count, 4"]);
    with("pick.toml", every, &watched("pick = \"best\"")).failed(&[
        "train.pick",
        "train.validation",
        "best",
    ]);
    with("picked.toml", every, &watched("pick = \"first\"")).failed(&["picked.toml", "first"]);
    with("skill.toml", "\"coco\"", "\"cooking\"").failed(&["cooking"]);
    with("model.toml", "model = \"model\"", "model = \"none\"").failed(&["none does not exist"]);
    selma
        .run("run no.toml")
        .failed(&["no.toml", "No such file"]);
    selma
        .run("run recipe.toml --out new --resume")
        .failed(&["new", "no run to resume"]);
    selma.run("run recipe.toml --device gpu").failed(&["gpu"]);
    selma.run("run").misused(&["RECIPE.toml"]);
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let selma = world();
    selma.run("run recipe.toml --out out --stage prompts").ok();
    selma.write("other.toml", RECIPE.replace("seed = 7", "seed = 8"));
    selma
        .run("run other.toml --out out")
        .failed(&["out", "another recipe"]);
    selma
        .run("run recipe.toml --out model")
        .failed(&["model", "not empty"]);
    selma
        .run("run recipe.toml --out recipe.toml")
        .failed(&["recipe.toml"]);
    selma
        .run("run recipe.toml --out no/folder/at/recipe.toml/x --stage prompts")
        .ok();
    selma.run("report model").failed(&["model/recipe.json"]);
}

#[test]
fn a_run_whose_model_or_skill_changed_is_not_continued() {
    let selma = world();
    let skill = include_str!("../../crates/selma-mini/skills/coco.toml")
        .replace("name = \"coco\"", "name = \"own\"");
    selma.write("skill.toml", &skill);
    selma.write(
        "own.toml",
        RECIPE.replace("\"count_bench\"", "\"skill.toml\""),
    );
    let stage = |name: &str| selma.run(&format!("run own.toml --out out --stage {name}"));
    stage("prompts").ok();
    selma.write(
        "skill.toml",
        format!("{skill}# A remark changes nothing.\n"),
    );
    stage("prompts").ok();
    selma.write("skill.toml", skill.replace("count = 20", "count = 19"));
    stage("prompts").failed(&["out", "skill own", "begun with"]);
    selma.write("skill.toml", &skill);
    stage("prompts").ok();
    stage("images").ok();
    let weights = selma.path("model/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    stage("train").failed(&["out", "the model", "begun with"]);
}

#[test]
fn two_processes_do_not_work_in_one_run() {
    let selma = world();
    selma.run("run recipe.toml --out out --stage prompts").ok();
    let recipe = fs::File::open(selma.path("out/recipe.json")).unwrap();
    recipe.lock().unwrap();
    selma
        .run("run recipe.toml --out out")
        .failed(&["out", "in use by another process"]);
    recipe.unlock().unwrap();
    selma.run("run recipe.toml --out out --stage prompts").ok();
}

#[test]
fn the_stages_are_commands_of_their_own() {
    let selma = world();
    selma
        .run("prompts --mini --skill coco --count 4 --out prompts")
        .ok();
    let draw = "images --model model --prompts prompts/coco.jsonl --steps 2 --batch-size 2 --out";
    selma.run(&format!("{draw} data")).ok();
    let drawn = files(&selma.path("data"));
    selma.run(&format!("{draw} data")).ok();
    selma
        .run(&format!("{draw} data --seed 1"))
        .failed(&["data", "another model, seed or setting"]);
    assert!(files(&selma.path("data")) == drawn);
    let described = selma.run("inspect data").ok();
    assert!(
        described.text().contains("64x64 (4)"),
        "{}",
        described.text()
    );
    selma.run(&format!("{draw} twice --per-prompt 2")).ok();
    let twice = Dataset::open(selma.path("twice")).unwrap();
    let names: Vec<&str> = twice.iter().map(|s| s.file_name.as_str()).collect();
    assert_eq!(names.len(), 8);
    assert_eq!(names[..2], ["coco-000000-1.png", "coco-000000.png"]);
    assert_ne!(twice.image(0).unwrap(), twice.image(1).unwrap());
    let train = "train --model model --data data --steps 3 --batch-size 2 --rank 2 --out";
    selma.run(&format!("{train} expert")).ok();
    selma.run(&format!("{train} again")).ok();
    assert_eq!(
        selma.read("expert/adapter.safetensors"),
        selma.read("again/adapter.safetensors")
    );
    // Everything that makes pictures other ones is in their provenance.
    let styled = "--negative blue --width 32 --height 32 --adapter expert/adapter.safetensors=0.5 --dtype f16 \
        --scheduler-config timestep_spacing=trailing";
    selma.run(&format!("{draw} styled {styled}")).ok();
    let styled = Dataset::open(selma.path("styled")).unwrap();
    let provenance = styled.iter().next().unwrap().provenance.as_ref().unwrap();
    assert_eq!(provenance.negative_prompt.as_deref(), Some("blue"));
    assert_eq!((provenance.width, provenance.height), (32, 32));
    assert!(provenance.adapters[0].ends_with("=0.5"));
    selma
        .run(&format!(
            "{draw} styled --width 64 --height 64 --negative blue"
        ))
        .failed(&["styled", "another model, seed or setting"]);
    let long = format!("{}end", "red ".repeat(80));
    let row = format!("{{\"id\":\"a\",\"skill\":\"s\",\"text\":\"{long}\"}}\n");
    let rows = row.clone() + &row.replace("\"a\"", "\"b\"");
    selma.write("long.jsonl", rows);
    let told = selma
        .run("images --model model --prompts long.jsonl --steps 2 --batch-size 1 --out long")
        .ok();
    assert_eq!(told.stderr.matches("cut off").count(), 1, "{}", told.stderr);
    let finished = files(&selma.path("expert"));
    selma.run(&format!("{train} expert")).ok();
    selma
        .run(&format!("{train} expert --seed 1"))
        .failed(&["expert", "training of other"]);
    assert!(files(&selma.path("expert")) == finished);
    selma
        .run(&format!(
            "{draw} drawn --adapter expert/adapter.safetensors"
        ))
        .ok();
    assert_ne!(
        files(&selma.path("data")).values().collect::<Vec<_>>(),
        files(&selma.path("drawn")).values().collect::<Vec<_>>()
    );
}

#[test]
fn stages_name_what_they_cannot_use() {
    let selma = world();
    let check = |args: &str, parts: &[&str]| -> Ended { selma.run(args).failed(parts) };
    selma.write(
        "torn.jsonl",
        "{\"id\":\"a\",\"skill\":\"s\",\"text\":\"t\"}\n{\"id\":\"b\"",
    );
    check(
        "images --model model --prompts no.jsonl --out data",
        &["no.jsonl", "No such file"],
    );
    check(
        "images --model model --prompts torn.jsonl --out data",
        &["torn.jsonl, line 2"],
    );
    let prompt =
        |id: &str| format!("{{\"id\":\"{id}\",\"skill\":\"s\",\"text\":\"a red disc\"}}\n");
    selma.write("alike.jsonl", prompt("x") + &prompt("x-1"));
    check(
        "images --model model --prompts alike.jsonl --per-prompt 2 --out drawn",
        &["`x` and `x-1`", "x-1.png"],
    );
    assert!(!selma.path("drawn").exists());
    check(
        "train --model model --data no --out expert",
        &["cannot read no", "No such file"],
    );
    for (command, flag) in [
        (
            "train --model model --data model --out expert --steps 0",
            "--steps",
        ),
        (
            "train --model model --data model --out expert --checkpoint-every 0",
            "--checkpoint-every",
        ),
        (
            "images --model model --prompts no.jsonl --out data --batch-size 0",
            "--batch-size",
        ),
        (
            "images --model model --prompts no.jsonl --out data --guidance nan",
            "--guidance",
        ),
    ] {
        selma.run(command).misused(&[flag]);
    }
    selma.write("train.toml", "rnak = 3\n");
    check(
        "train --model model --data model --out expert --config train.toml",
        &["train.toml", "rnak"],
    );
    fs::create_dir(selma.path("data")).unwrap();
    selma.write(
        "data/metadata.jsonl",
        "{\"file_name\":\"../a.png\",\"text\":\"a\"}\n",
    );
    check(
        "train --model model --data data --out expert",
        &["data/metadata.jsonl, line 1", "../a.png"],
    );
    assert!(!selma.path("expert").exists());
    selma.write("pretrain.toml", "sead = 3\n");
    check("pretrain pretrain.toml --out new", &["pretrain.toml"]);
    assert!(!selma.path("new").exists());
}
