//! The recipes of the paper's experiments: their plans, and all of their stages in small, with a server of the test's own as language model and judge.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::runs::{RECIPE, assert_same_files, world};
use common::{Selma, fixture, tiny_sd, tiny_sdxl};
use selma_eval::EvalResult;
use selma_http::loopback::{Act, Seen, Server};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

const QUESTIONS: &str = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n\
    whoops_5,a red cat,cat,1,0,entity,whole,entity - whole (cat),Is there a cat?\n\
    whoops_5,a red cat,\"cat, red\",2,\"1, cat\",attribute,color,\"attribute - color (cat, red)\",Is the cat red?\n\
    vrd_1,a dog,dog,1,0,entity,whole,entity - whole (dog),Is there a dog?\n";

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_paper = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("paper-")
    };
    let mut found: Vec<PathBuf> = paths.filter(is_paper).collect();
    found.sort();
    assert_eq!(found.len(), 6);
    found
}

#[test]
fn the_papers_recipes_are_planned_without_their_models() {
    for path in recipes() {
        let selma = Selma::new();
        let plan = selma.run_with("run --plan", &[path.to_str().unwrap()]).ok();
        let jobs: Vec<Json> = serde_json::from_slice(&plan.stdout).unwrap();
        let has = |id: &str| jobs.iter().any(|job| job["id"] == id);
        for id in ["train/whoops", "merge/factor_mean", "eval/merged-mean"] {
            assert!(has(id), "{id} in {}", path.display());
        }
        let name = path.file_stem().unwrap();
        assert_eq!(has("train/mix5-rank640"), name == "paper-sd2");
        assert_eq!(has("merge/dpo"), name == "paper-sd2-dpo");
        assert_eq!(has("eval/teacher"), name == "paper-weak-to-strong");
        assert_eq!(selma.names(), [""; 0]);
    }
}

/// Writes prompts of words that no other has, and says that everything is in every picture.
fn server() -> Server {
    let written = AtomicUsize::new(0);
    Server::answering(move |seen: &Seen| {
        let body: Json = serde_json::from_str(&seen.body).unwrap();
        let caption = || {
            let n = written.fetch_add(1, Ordering::Relaxed);
            format!("4. kelp{n} moss{n} fern{n}\n")
        };
        let choices: Vec<Json> = match &body["prompt"] {
            Json::Null => {
                let judges = body["messages"][0]["content"].is_array();
                let words = if judges { "Yes.".to_owned() } else { caption() };
                let message = json!({"role": "assistant", "content": words});
                let mut choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
                if body["logprobs"] == true {
                    choice["logprobs"] = json!({"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": [
                        {"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -3.0}]}]});
                }
                vec![choice]
            }
            prompts => {
                let count = prompts.as_array().map_or(1, Vec::len);
                let choice =
                    |index| json!({"index": index, "text": caption(), "finish_reason": "stop"});
                (0..count).map(choice).collect()
            }
        };
        let answer = json!({"choices": choices}).to_string();
        Act::answer("200 OK", "", answer.as_bytes())
    })
}

fn table<'a>(parent: &'a mut Table, key: &str) -> &'a mut Table {
    parent[key].as_table_mut().unwrap()
}

fn set(table: &mut Table, values: &[(&str, Value)]) {
    for (key, value) in values {
        table.insert((*key).to_owned(), value.clone());
    }
}

/// The recipe with a tiny model and tiny numbers, and everything else as it is.
fn in_small(path: &Path, server: &Server) -> Table {
    let text = fs::read_to_string(path).unwrap();
    let mut recipe: Table = toml::from_str(&text).unwrap();
    let model = |id: &str| {
        Value::from(if id.contains("xl") {
            tiny_sdxl()
        } else {
            tiny_sd()
        })
    };
    let clip = || Value::from(fixture("selma-diffusion/tests/fixtures/scorers/clip"));
    let url = || Value::from(format!("{}/v1", server.url()));
    let name = recipe["model"].as_str().unwrap().to_owned();
    recipe.insert("model".to_owned(), model(&name));
    recipe.remove("model_options");
    let prompts = table(&mut recipe, "prompts");
    set(prompts, &[("count", 2.into())]);
    let writer = table(table(prompts, "writer"), "openai");
    set(writer, &[("base_url", url())]);
    writer.remove("api_key_env");
    let images = table(&mut recipe, "images");
    set(images, &[("steps", 2.into())]);
    if let Some(teacher) = images.get("model").cloned() {
        set(images, &[("model", model(teacher.as_str().unwrap()))]);
    }
    let short = [
        ("steps", 2.into()),
        ("rank", 2.into()),
        ("alpha", 2.0.into()),
    ];
    let train = table(&mut recipe, "train");
    set(train, &short);
    set(
        train,
        &[
            ("batch_size", 2.into()),
            ("gradient_accumulation", 1.into()),
        ],
    );
    train.remove("geometry");
    let trainings = recipe.get_mut("trainings").and_then(Value::as_array_mut);
    for training in trainings.into_iter().flatten() {
        set(table(training.as_table_mut().unwrap(), "settings"), &short);
    }
    if recipe.contains_key("selection") {
        let judge = table(table(&mut recipe, "selection"), "judge");
        // The scores of a CLIP that has learnt nothing may all be below zero, which CLIP score does not tell apart.
        set(
            table(judge, "scorer"),
            &[("weights", clip()), ("scorer", "pickscore".into())],
        );
    }
    let eval = table(&mut recipe, "eval");
    set(eval, &[("steps", 2.into())]);
    set(table(eval, "questions"), &[("csv", "questions.csv".into())]);
    set(
        table(table(eval, "judge"), "openai"),
        &[("base_url", url())],
    );
    let hps = fixture("selma-diffusion/tests/fixtures/scorers/hps/HPS_v2_compressed.pt");
    for (scorer, weights) in eval["scorers"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip([clip(), hps.into()])
    {
        set(scorer.as_table_mut().unwrap(), &[("weights", weights)]);
    }
    recipe
}

#[test]
fn every_stage_of_the_papers_recipes_runs_in_small() {
    let server = server();
    for path in recipes() {
        let selma = Selma::new();
        selma.write("questions.csv", QUESTIONS);
        let recipe = in_small(&path, &server);
        selma.write("recipe.toml", toml::to_string(&recipe).unwrap());
        let ended = selma.run("run recipe.toml --out run").ok();
        let name = recipe["name"].as_str().unwrap();
        for part in ["merged-factor_mean", "pickscore", "hps21"] {
            assert!(
                ended.text().contains(part),
                "{name}: {part}: {}",
                ended.text()
            );
        }
        let result =
            EvalResult::load(&selma.path("run/eval/merged-mean/dsg-test-g7.5.json")).unwrap();
        assert_eq!(result.vqa, "Qwen/Qwen2.5-VL-7B-Instruct");
        assert_eq!((result.questions, result.overall.mean), (3, 1.0), "{name}");
        let drawn = String::from_utf8(selma.read("run/images/coco/metadata.jsonl")).unwrap();
        let teacher = recipe["images"].get("model").unwrap_or(&recipe["model"]);
        assert!(drawn.contains(teacher.as_str().unwrap()), "{name}: {drawn}");
        let report = String::from_utf8(selma.read("run/report/report.md")).unwrap();
        for part in ["## Metrics", "answered by Qwen", "questions.csv"] {
            assert!(report.contains(part), "{name}: {part}: {report}");
        }
    }
    let seen = server.seen();
    let judged = seen
        .iter()
        .filter(|seen| seen.body.contains("data:image/jpeg"));
    assert!(judged.count() > 0);
    assert!(seen.iter().any(|seen| seen.path() == "/v1/completions"));
}

#[test]
fn a_server_chooses_pictures_and_is_asked_once() {
    let selma = world();
    let server = server();
    selma.write("questions.csv", QUESTIONS);
    let judge = format!(
        "judge = {{ openai = {{ base_url = \"{}/v1\", model = \"seer\" }} }}",
        server.url()
    );
    let eval = format!(
        "[eval]\n{judge}\nquestions = {{ csv = \"questions.csv\", quirks = \"official\" }}\nprompts = 1\n"
    );
    let recipe = RECIPE
        .replace(
            "[eval]\nprompts = 1\nvalidation = 1\nguidances = [1.0, 2.0]\n",
            &format!("{eval}guidances = [2.0]\n"),
        )
        .replace("union = false", "union = false\nfiltered = true")
        .replace(
            "[images]\n",
            &format!("[selection]\n{judge}\nquestions = [\"coco.csv\", \"count.csv\"]\n[images]\n"),
        );
    selma.write("recipe.toml", &recipe);
    selma.run("run recipe.toml --out run --stage prompts").ok();
    for (skill, name) in [("coco", "coco"), ("count_bench", "count")] {
        let prompts = String::from_utf8(selma.read(&format!("run/prompts/{skill}.jsonl"))).unwrap();
        let mut rows = QUESTIONS.lines().next().unwrap().to_owned() + "\n";
        for prompt in prompts.lines() {
            let prompt: Json = serde_json::from_str(prompt).unwrap();
            let (id, text) = (
                prompt["id"].as_str().unwrap(),
                prompt["text"].as_str().unwrap(),
            );
            rows += &format!("{id},\"{text}\",x,1,0,entity,whole,entity - whole (x),Is it so?\n");
        }
        selma.write(&format!("{name}.csv"), rows);
    }
    selma.run("run recipe.toml --out run").ok();
    let answers = String::from_utf8(selma.read("run/selection/coco-filtered.jsonl")).unwrap();
    assert_eq!(answers.lines().count(), 4);
    assert!(selma.path("run/merged/mean-filtered.safetensors").is_file());
    // Nothing is asked again, whatever is made again of the answers.
    let asked = server.seen().len();
    common::copy_folder(&selma.path("run"), &selma.path("again"));
    fs::remove_dir_all(selma.path("again/experts")).unwrap();
    fs::remove_file(selma.path("again/eval/base/dsg-test-g2.json")).unwrap();
    selma.run("run recipe.toml --out again").ok();
    assert_eq!(server.seen().len(), asked);
    assert_same_files(&selma.path("run"), &selma.path("again"));
    // Another file of questions is another evaluation.
    selma.write("questions.csv", QUESTIONS.replace("a red cat", "a cat"));
    selma
        .run("run recipe.toml --out run")
        .failed(&["file of questions", "begun with"]);

    // Of each prompt as a whole.
    let whole = recipe
        .replace("questions = [\"coco.csv\", \"count.csv\"]\n", "")
        .replace("filtered = true", "filtered = false")
        + "[[trainings]]\nname = \"best\"\ndata = { best = 0.5 }\nsettings = { steps = 2 }\n";
    selma.write("whole.toml", whole);
    selma.write("questions.csv", QUESTIONS);
    selma.run("run whole.toml --out whole").ok();
    assert!(
        selma
            .path("whole/experts/best/adapter.safetensors")
            .is_file()
    );
    let asked = server.seen();
    let figure = |seen: &&Seen| seen.body.contains("Does this figure show");
    assert_eq!(asked.iter().filter(figure).count(), 8);
}

/// The tiny BLIP of the fixtures has random weights; what it says does not matter here.
#[test]
fn blip_judges_and_chooses_in_the_program() {
    let selma = world();
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/selma-diffusion/tests/fixtures");
    common::copy_folder(&fixtures.join("blip/vqa"), &selma.path("blip"));
    common::copy_folder(&fixtures.join("scorers/clip"), &selma.path("clip"));
    let judge = "judge = { blip = { weights = \"blip\", beams = 2 } }\n";
    let scorers = "scorers = [{ scorer = \"clip\", weights = \"clip\" }]\n";
    let recipe = RECIPE
        .replace("[eval]\n", &format!("[eval]\n{judge}{scorers}"))
        .replace(
            "validation = 1\nguidances = [1.0, 2.0]\n",
            "guidances = [2.0]\n",
        )
        .replace("[images]\n", &format!("[selection]\n{judge}[images]\n"))
        + "[[trainings]]\nname = \"best\"\ndata = { best = 0.0 }\nsettings = { steps = 2 }\n";
    selma.write("recipe.toml", &recipe);
    selma.run("run recipe.toml --out run").ok();
    let json = |path: &str| -> Json { serde_json::from_slice(&selma.read(path)).unwrap() };
    let result = json("run/eval/base/dsg-test-g2.json");
    let vqa = result["vqa"].as_str().unwrap();
    assert!(vqa.starts_with("blip:") && vqa.len() == 21, "{vqa}");
    for answers in ["run/eval/base/answers.jsonl", "run/selection/best.jsonl"] {
        assert!(!selma.read(answers).is_empty(), "{answers}");
    }
    let chosen = json("run/selection/best.json");
    let skills: Vec<&str> = chosen
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["skill"].as_str().unwrap())
        .collect();
    assert_eq!(skills, ["coco", "count_bench"]);
    assert_eq!(
        chosen[0],
        serde_json::json!({"skill": "coco", "drawn": 4, "passed": 4, "used": 4})
    );
    let report = String::from_utf8(selma.read("run/report/report.md")).unwrap();
    assert!(report.contains("| best | coco | 4 | 4 | 4 |"), "{report}");
    // All of it by its weights, so that others are noticed.
    let inputs = json("run/inputs.json");
    let of_judge = inputs["eval.judge"].as_str().unwrap();
    assert!(of_judge.starts_with(&vqa[5..]));
    assert_eq!(inputs["selection.judge"], inputs["eval.judge"]);
    let scores = String::from_utf8(selma.read("run/eval/base/clip-test-g2.jsonl")).unwrap();
    assert!(
        scores.contains(inputs["scorer clip"].as_str().unwrap()),
        "{scores}"
    );
    let changed = |path: &str, key: &str, parts: &[&str]| {
        let path = selma.path(path);
        let before = fs::read(&path).unwrap();
        common::models::change(&path, key);
        selma.run("run recipe.toml --out run").failed(parts);
        selma
            .run("run recipe.toml --out run --stage eval")
            .failed(parts);
        fs::write(&path, before).unwrap();
    };
    changed(
        "blip/model.safetensors",
        "vision_model.post_layernorm.bias",
        &["eval.judge", "begun with"],
    );
    changed(
        "clip/model.safetensors",
        "vision_model.post_layernorm.bias",
        &["scorer clip", "begun with"],
    );
    fs::remove_dir_all(selma.path("blip")).unwrap();
    selma.run("run recipe.toml --out run --plan").ok();
    selma
        .run("run recipe.toml --out run")
        .failed(&["blip", "found none"]);
}

#[test]
fn judges_that_cannot_be_used_are_named() {
    let selma = world();
    let refused = |from: &str, to: &str, parts: &[&str]| {
        assert!(RECIPE.contains(from), "{from}");
        selma.write("wrong.toml", RECIPE.replace(from, to));
        selma.run("run wrong.toml --out out").failed(parts);
        assert!(!selma.path("out/prompts").exists());
        fs::remove_dir_all(selma.path("out")).ok();
    };
    let file = "questions = { csv = \"no.csv\" }\n";
    let one = "guidances = [1.0]\n";
    let eval = "prompts = 1\nvalidation = 1\nguidances = [1.0, 2.0]\n";
    refused(
        "prompts = 1\n",
        &format!("{file}prompts = 1\n"),
        &["eval.guidances", "one guidance"],
    );
    refused(eval, &format!("{file}{one}"), &["no.csv"]);
    refused("prompts = 1\n", "", &["eval.prompts", "at least 1"]);
    refused(
        "prompts = 1\n",
        "prompts = 1\njpeg = 80\n",
        &["eval.jpeg", "oracle"],
    );
    let server = "judge = { openai = { base_url = \"http://localhost:1/v1\", model = \"m\" } }\n";
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\njpeg = 0\n{server}"),
        &["eval.jpeg", "1 to 100"],
    );
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\n{}", server.replace("http://", "ftp://")),
        &["eval.judge.openai", "http://"],
    );
    let blip = "judge = { blip = { weights = \"no\" } }\n";
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\n{blip}"),
        &["no has no weights", "found none"],
    );
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\njpeg = 80\n{blip}"),
        &["eval.jpeg", "BLIP"],
    );
    for (wrong, named) in [("beams = 0", "beams = 0"), ("device = \"cuda\"", "device")] {
        let wrong = blip.replace("\"no\"", &format!("\"no\", {wrong}"));
        refused(
            "prompts = 1\n",
            &format!("prompts = 1\n{wrong}"),
            &["wrong.toml", named],
        );
    }
    refused(
        "[train]\nunion = false",
        &format!("[selection]\n{blip}[train]\nfiltered = true\nunion = false"),
        &["selection", "BLIP with questions"],
    );
    let scorer = "scorers = [{ scorer = \"clip\", weights = \"no\" }]\n";
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\n{scorer}"),
        &["scorer clip", "no"],
    );
    let twice = scorer.replace("}]", "}, { scorer = \"clip\", weights = \"b\" }]");
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\n{twice}"),
        &["eval.scorers", "clip twice"],
    );
    let headless = scorer.replace("clip", "aesthetic");
    refused(
        "prompts = 1\n",
        &format!("prompts = 1\n{headless}"),
        &["head", "none"],
    );
    let select = "[selection]\njudge = { scorer = { scorer = \"clip\", weights = \"no\" } }\n";
    refused(
        "[train]\n",
        &format!("{select}[train]\n"),
        &["scorer clip", "nothing at no"],
    );
    refused(
        "[train]\nunion = false",
        &format!("{select}[train]\nfiltered = true\nunion = false"),
        &["selection", "faultless"],
    );
    refused(
        "[train]\n",
        &format!("{select}jpeg = 80\n[train]\n"),
        &["selection.jpeg", "server"],
    );
}
