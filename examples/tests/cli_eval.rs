//! `selma eval`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::models::change;
use common::{Selma, copy_folder};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma_eval::tifa::TifaResult;
use selma_eval::{EvalResult, QuestionSet, VqaScoreResult};
use selma_http::loopback::{Act, Seen, Server};
use selma_mini::{EvalSet, Partition, layout, render};
use serde_json::{Value, json};

/// Pictures of the prompts, drawn by the renderer, and their questions.
fn world(folder: &Path) -> EvalSet {
    let set = EvalSet::draw(Partition::Validation, 2, 3).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    fs::create_dir(folder.join("pictures")).unwrap();
    for item in set.items() {
        let picture = render(&layout(&item.spec, &mut rng).unwrap());
        picture
            .save(folder.join(format!("pictures/{}.png", item.id)))
            .unwrap();
    }
    QuestionSet::new(set.questions())
        .unwrap()
        .write(&folder.join("questions.csv"))
        .unwrap();
    set
}

const ASK: &str =
    "eval dsg --images pictures --annotations questions.csv --vqa oracle --out result.json";

#[test]
fn rendered_pictures_are_faithful_and_wrong_ones_are_not() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let ended = selma.run(ASK).ok();
    let right = EvalResult::load(&selma.path("result.json")).unwrap();
    assert_eq!(right.items.len(), set.items().len());
    assert!(right.overall.mean > 0.9, "{}", right.overall.mean);
    for part in ["all", "source: coco", "category: entity", "95% interval"] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let ids: Vec<&str> = set.items().iter().map(|item| item.id.as_str()).collect();
    let blank = image::RgbImage::from_pixel(64, 64, image::Rgb([255, 255, 255]));
    blank
        .save(selma.path(&format!("pictures/{}.png", ids[0])))
        .unwrap();
    selma.run(&format!("{ASK} --aggregation selma")).ok();
    let worse = EvalResult::load(&selma.path("result.json")).unwrap();
    assert!(worse.overall.mean < right.overall.mean);
    assert_ne!(worse.aggregation, right.aggregation);
}

/// The tiny BLIP of the fixtures has random weights; what it says does not matter here.
#[test]
fn blip_answers_without_a_server() {
    let selma = Selma::new();
    world(selma.folder.path());
    let blip = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/selma-diffusion/tests/fixtures/blip/vqa");
    let blip = blip.canonicalize().unwrap();
    let ask = ASK.replace("oracle", &format!("blip:{}", blip.display()));
    let ask = format!("{ask} --beams 2 --cache answers.jsonl");
    selma.run(&ask).ok();
    let first = EvalResult::load(&selma.path("result.json")).unwrap();
    assert!(first.soft.is_some());
    let ended = selma.run(&ask).ok();
    assert!(
        ended.stderr.contains("were there already"),
        "{}",
        ended.stderr
    );
    assert_eq!(EvalResult::load(&selma.path("result.json")).unwrap(), first);
    // The same weights in another folder share the answers, other weights of the same folder do not.
    let copy = selma.path("copy");
    copy_folder(&blip, &copy);
    let of_copy = ask.replace(blip.to_str().unwrap(), "copy");
    let kept = selma.read("answers.jsonl");
    selma.run(&of_copy).ok();
    assert_eq!(selma.read("answers.jsonl"), kept);
    assert_eq!(EvalResult::load(&selma.path("result.json")).unwrap(), first);
    change(
        &copy.join("model.safetensors"),
        "vision_model.post_layernorm.bias",
    );
    selma.run(&of_copy).ok();
    assert!(selma.read("answers.jsonl").len() > kept.len());
    let other = EvalResult::load(&selma.path("result.json")).unwrap();
    assert!(other.vqa.starts_with("blip:") && other.vqa != first.vqa);
    selma
        .run(&format!("{ask} --jobs 2"))
        .failed(&["BLIP needs no server", "--jobs"]);
    selma.run(&format!("{ASK} --beams 2")).failed(&["--beams"]);
    selma
        .run(&ASK.replace("oracle", "blip:pictures"))
        .failed(&["config.json"]);
    selma
        .run(&ASK.replace("oracle", "blip:"))
        .misused(&["blip:DIR"]);
}

#[test]
fn given_answers_are_scored_without_pictures() {
    let selma = Selma::new();
    selma.write(
        "q.csv",
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n\
         a_1,a red cat,,1,0,entity,whole,entity - whole (cat),Is there a cat?\n\
         a_1,a red cat,,2,1,attribute,color,\"attribute - color (cat, red)\",Is the cat red?\n",
    );
    selma.write(
        "a.csv",
        "t2i_model,item_id,question_id,answer\nsd,a_1,1,yes\nsd,a_1,2,no\nother,a_1,1,no\n",
    );
    let score = "eval dsg --annotations q.csv --answers a.csv";
    let ended = selma.run(&format!("{score} --t2i-model sd")).ok();
    assert!(ended.text().contains("50.00"), "{}", ended.text());
    selma.run(score).failed(&["a.csv"]);
    selma
        .run(&format!("{score} --t2i-model xl"))
        .failed(&["a.csv", "xl", "sd"]);
    selma
        .run("eval dsg --annotations q.csv --answers no.csv")
        .failed(&["no.csv", "No such file"]);
    selma
        .run(&format!("{score} --images p --vqa oracle"))
        .misused(&["--answers"]);
}

#[test]
fn what_cannot_be_evaluated_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let first = format!("pictures/{}.png", set.items()[0].id);
    let whole = selma.read(&first);
    fs::remove_file(selma.path(&first)).unwrap();
    selma.run(ASK).failed(&[&first, "has no image"]);
    fs::write(selma.path(&first), &whole[..whole.len() / 2]).unwrap();
    selma.run(ASK).failed(&[&first, "cannot be read"]);
    image::RgbImage::new(32, 32)
        .save(selma.path(&first))
        .unwrap();
    selma.run(ASK).failed(&["64", "32"]);
    fs::write(selma.path(&first), whole).unwrap();
    let csv = String::from_utf8(selma.read("questions.csv")).unwrap();
    selma.write("questions.csv", csv.replacen("proposition_id", "number", 1));
    selma.run(ASK).failed(&["questions.csv", "proposition_id"]);
    selma.write("questions.csv", csv);
    selma
        .run(&ASK.replace("result.json", "no/result.json"))
        .failed(&["cannot write no/result.json"]);
    selma
        .run(&ASK.replace("--images pictures", "--images no"))
        .failed(&["no is not a folder"]);
    assert_eq!(selma.names(), ["pictures", "questions.csv"]);
    selma
        .run("eval dsg --annotations questions.csv")
        .misused(&["--images"]);
    selma
        .run("eval dsg --annotations questions.csv --images pictures")
        .misused(&["--vqa"]);
    selma.run("eval").misused(&["dsg"]);
}

/// A chat server whose answer to a request is what `words` makes of it.
fn chat(words: impl Fn(&Value) -> String + Send + Sync + 'static) -> Server {
    Server::answering(move |seen: &Seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let logprobs = json!({"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": [
            {"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -3.0}]}]});
        let message = json!({"role": "assistant", "content": words(&body)});
        let mut choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        if body["logprobs"] == true {
            choice["logprobs"] = logprobs;
        }
        let answer = json!({"choices": [choice]}).to_string();
        Act::answer("200 OK", "", answer.as_bytes())
    })
}

fn asked(body: &Value) -> &str {
    let content = &body["messages"][0]["content"];
    content[0]["text"].as_str().or(content.as_str()).unwrap()
}

#[test]
fn a_vision_model_on_a_server_answers_once() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let count = set.questions().len();
    let server = chat(|body| {
        let odd = asked(body).contains("heart");
        if odd {
            "maybe".to_owned()
        } else {
            "Yes.".to_owned()
        }
    });
    let ask = format!(
        "eval dsg --images pictures --annotations questions.csv --vqa openai:{}/v1#seer --cache answers.jsonl --jobs 3 --out result.json",
        server.url()
    );
    let ended = selma.run(&ask).ok();
    assert_eq!(server.seen().len(), count);
    let first = selma.read("result.json");
    let result = EvalResult::load(&selma.path("result.json")).unwrap();
    assert_eq!(
        (result.vqa.as_str(), result.questions, result.unanswered),
        ("seer", count, 0)
    );
    assert_eq!(result.soft.unwrap().questions, count);
    for part in ["mean probability of \"yes\"", "seer", "all"] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let unclear = ended.text().contains("neither \"yes\" nor \"no\"");
    assert_eq!(unclear, result.unclear > 0, "{}", ended.text());
    // As a kill in the middle of a write leaves it.
    let whole = selma.read("answers.jsonl");
    fs::write(selma.path("answers.jsonl"), &whole[..whole.len() - 9]).unwrap();
    let ended = selma.run(&ask).ok();
    assert!(
        ended.stderr.contains("answers.jsonl: a torn last line of"),
        "{}",
        ended.stderr
    );
    let told = format!(
        "answers.jsonl: {count} answers, of which {} were there already",
        count - 1
    );
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    assert_eq!(
        (server.seen().len(), selma.read("result.json")),
        (count + 1, first)
    );

    selma.write(
        "server.toml",
        format!("base_url = \"{}/v1\"\nmodel = \"seer\"\n", server.url()),
    );
    let ask = "eval dsg --images pictures --annotations questions.csv --vqa openai";
    selma
        .run(&format!("{ask} --llm-config server.toml --jpeg 90"))
        .ok();
    assert!(
        server.seen()[count + 1]
            .body
            .contains("data:image/jpeg;base64,")
    );
    selma.run(ask).failed(&["--llm-config"]);
    selma
        .run(&format!("{ask} --llm-config no.toml"))
        .failed(&["no.toml"]);
    selma
        .run(&format!("{ask} --llm-config server.toml --jpeg 0"))
        .failed(&["JPEG quality", "1 to 100"]);
    selma
        .run(&format!("{ask}:nowhere"))
        .misused(&["openai:URL#MODEL"]);
    selma
        .run(&format!(
            "{ask}:http://127.0.0.1:9/v1#m --api-key-env SELMA_TEST_NO_SUCH_KEY"
        ))
        .failed(&["SELMA_TEST_NO_SUCH_KEY"]);
    selma
        .run(&format!("{ASK} --jobs 2"))
        .failed(&["the oracle needs no server"]);
    selma
        .run(&format!("{ASK} --cache result.json"))
        .failed(&["result.json"]);
}

#[test]
fn questions_are_written_and_asked() {
    let selma = Selma::new();
    selma.write(
        "prompts.jsonl",
        "{\"id\":\"a_1\",\"text\":\"a red cat\"}\n{\"id\":\"a_2\",\"text\":\"nonsense\"}\n",
    );
    let server = chat(|body| {
        let last = asked(body).rsplit("input: ").next().unwrap().to_owned();
        if last.starts_with("nonsense") {
            return "no idea".to_owned();
        }
        let answer = match body["response_format"]["json_schema"]["name"]
            .as_str()
            .unwrap()
        {
            "tuples" => {
                json!({"tuples": [{"id": 1, "category": "entity", "detail": "whole", "words": ["cat"]}]})
            }
            "dependencies" => json!({"dependencies": [{"id": 1, "parents": []}]}),
            _ => json!({"questions": [{"id": 1, "question": "Is there a cat?"}]}),
        };
        answer.to_string()
    });
    let write = format!(
        "eval questions --prompts prompts.jsonl --llm {}/v1 --model writer --out q.csv",
        server.url()
    );
    let ended = selma.run(&write).ok();
    for part in [
        "1 prompts have no questions, see q.unwritten.jsonl; the first: a_2: tuples",
        "1 questions of 1 prompts",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let rows = String::from_utf8(selma.read("q.csv")).unwrap();
    assert!(
        rows.ends_with("a_1,a red cat,cat,1,0,entity,whole,entity - whole (cat),Is there a cat?\n"),
        "{rows}"
    );
    let unwritten = String::from_utf8(selma.read("q.unwritten.jsonl")).unwrap();
    assert!(
        unwritten.contains("\"text\":\"nonsense\"") && unwritten.contains("no idea"),
        "{unwritten}"
    );
    let requests = server.seen().len();
    selma.run(&write).ok();
    assert_eq!(server.seen().len(), requests);
    selma
        .run(&write.replace("q.csv", "prompts.jsonl"))
        .failed(&["prompts.jsonl is an input"]);
    selma
        .run(&write.replace("prompts.jsonl", "no.jsonl"))
        .failed(&["no.jsonl"]);
    selma
        .run("eval questions --prompts prompts.jsonl --out q.csv")
        .misused(&["--llm"]);
    selma.write("prompts.jsonl", "{\"id\":\"a_2\",\"text\":\"nonsense\"}\n");
    fs::remove_file(selma.path("q.csv")).unwrap();
    selma.run(&write).failed(&["no prompt has questions"]);
    assert_eq!(
        selma.names(),
        ["prompts.jsonl", "q.journal.jsonl", "q.unwritten.jsonl"]
    );
}

#[test]
fn a_prompt_is_scored_as_a_whole() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let server = chat(|_| "Yes".to_owned());
    let ask = format!(
        "eval vqascore --images pictures --prompts questions.csv --vqa openai:{}/v1#seer --out v.json",
        server.url()
    );
    let ended = selma.run(&ask).ok();
    for part in ["VQAScore, percent", "category: coco", "0 without a score"] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let result = VqaScoreResult::load(&selma.path("v.json")).unwrap();
    assert_eq!(result.prompts, set.items().len());
    selma
        .run("eval vqascore --images pictures --prompts questions.csv --vqa oracle")
        .failed(&["probabilities"]);
    selma
        .run("eval vqascore --images pictures --prompts questions.csv")
        .misused(&["--vqa"]);
}

#[test]
fn multiple_choice() {
    let selma = Selma::new();
    fs::create_dir(selma.path("drawn")).unwrap();
    image::RgbImage::new(4, 4)
        .save(selma.path("drawn/a_1.png"))
        .unwrap();
    let question = |text: &str, kind: &str| {
        json!({"id": "a_1", "caption": "a cat", "question": text,
        "choices": ["cat", "dog"], "answer": "cat", "element_type": kind, "element": "cat"})
    };
    let questions = json!([
        question("what is it?", "animal/human"),
        question("what sits there?", "activity")
    ]);
    selma.write("q.json", questions.to_string());
    let server = chat(|body| {
        let sits = asked(body).contains("sits");
        if sits {
            "A dog.".to_owned()
        } else {
            "cat".to_owned()
        }
    });
    let ask = format!(
        "eval tifa --images drawn --questions q.json --vqa openai:{}/v1#seer --out r.json",
        server.url()
    );
    let ended = selma.run(&ask).ok();
    for part in [
        "50.00",
        "type: activity",
        "1 exact, 1 by their words",
        "2 questions, 0 unanswered",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    assert_eq!(
        TifaResult::load(&selma.path("r.json")).unwrap().questions,
        2
    );
    let sent: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    assert_eq!(
        asked(&sent),
        "Answer the multiple-choice question. Question: what is it? Choices: cat, dog Answer:"
    );
    selma.run(&format!("{ask} --prompt question")).ok();
    let sent: Value = serde_json::from_str(&server.seen()[2].body).unwrap();
    assert_eq!(asked(&sent), "what is it?");
    let given = json!({"question_details": {"a_1": {"what is it?": {"free_form_vqa": "x", "multiple_choice_vqa": "cat"}}}});
    selma.write("given.json", given.to_string());
    let ended = selma
        .run("eval tifa --questions q.json --answers given.json")
        .ok();
    assert!(
        ended
            .text()
            .contains("2 questions, 1 unanswered; taken for choices: 1 as given"),
        "{}",
        ended.text()
    );
    selma
        .run("eval tifa --questions given.json --answers given.json")
        .failed(&["given.json", "TIFA's questions"]);
    // Nobody listens there.
    selma.write(
        "dead.toml",
        "base_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\nmax_retries = 0\n",
    );
    selma
        .run("eval tifa --questions q.json --images drawn --vqa openai --llm-config dead.toml --out no.json")
        .failed(&["not one of 2 questions was answered, for example: no answer from http://127.0.0.1:9"]);
    assert!(!selma.path("no.json").exists());
    selma
        .run("eval tifa --questions q.json")
        .misused(&["--images"]);
    selma
        .run("eval tifa --questions q.json --images drawn")
        .misused(&["--vqa"]);
}

/// The fixtures of the sentence encoders, where `tifa.json` has what TIFA's program takes answers for.
fn sentences(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/selma-diffusion/tests/fixtures/sentences");
    folder.join(name).canonicalize().unwrap()
}

#[test]
fn words_become_choices_by_sentence_embeddings() {
    let selma = Selma::new();
    let cases = fs::read_to_string(sentences("tifa.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let question = |case: &Value| {
        json!({"id": "a_1", "caption": "a cat", "question": case["question"], "choices": case["choices"],
        "answer": case["choices"][0], "element_type": "other"})
    };
    let questions: Vec<Value> = cases.iter().map(question).collect();
    selma.write("q.json", json!(questions).to_string());
    let free = |case: &Value| {
        let question = case["question"].as_str().unwrap().to_owned();
        (question, json!({"free_form_vqa": case["free_form_vqa"]}))
    };
    let free: serde_json::Map<String, Value> = cases.iter().map(free).collect();
    let given = json!({"question_details": {"a_1": free}});
    selma.write("given.json", given.to_string());
    let take = "eval tifa --questions q.json --answers given.json --out r.json";
    for name in ["mpnet", "bert"] {
        let folder = sentences(name);
        let ended = selma
            .run(&format!("{take} --embedder {}", folder.display()))
            .ok();
        let result = TifaResult::load(&selma.path("r.json")).unwrap();
        for (asked, case) in result.items[0].questions.iter().zip(&cases) {
            assert_eq!(
                asked.choice.as_deref(),
                case[name].as_str(),
                "{name} {case}"
            );
        }
        let hash = selma_durable::sha256(&folder.join("model.safetensors")).unwrap();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        for part in [
            "taken for choices: 1 exact, 4 by sentence embeddings",
            &format!("weights of SHA-256 {hash}"),
        ] {
            assert!(ended.text().contains(part), "{part}: {}", ended.text());
        }
        assert_eq!(result.embedder.unwrap().sha256, hash);
    }
    selma.run(take).ok();
    let result = TifaResult::load(&selma.path("r.json")).unwrap();
    assert_eq!(result.embedder, None);
    selma
        .run(&format!("{take} --embedder nowhere"))
        .failed(&["nowhere/config.json"]);
    let embedder = format!("--embedder {} --device abacus", sentences("bert").display());
    selma
        .run(&format!("{take} {embedder}"))
        .failed(&["device \"abacus\""]);
    selma
        .run(&format!("{take} --device flex"))
        .misused(&["--embedder"]);
    // Asked by a model elsewhere, with choices from one in this program.
    fs::create_dir(selma.path("drawn")).unwrap();
    let picture = image::RgbImage::new(4, 4);
    picture.save(selma.path("drawn/a_1.png")).unwrap();
    let server = chat(|_| "a pale green".to_owned());
    let ask = format!(
        "eval tifa --questions q.json --images drawn --vqa openai:{}/v1#seer --device flex",
        server.url()
    );
    let embedder = sentences("mpnet");
    let ended = selma
        .run(&format!("{ask} --embedder {}", embedder.display()))
        .ok();
    assert!(
        ended.text().contains("choices: 5 by sentence embeddings"),
        "{}",
        ended.text()
    );
    selma
        .run(&ask)
        .failed(&["--device is for models in this program alone"]);
}
