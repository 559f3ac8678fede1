//! Models by their ids, from a hub on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Ended, Selma, tiny_sd};
use selma_http::loopback::{Act, Server};

const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";
const TOKEN: &str = "hf_very_secret_0123456789";

/// Serves the tiny model as `tiny/sd`; other models do not exist, and `tiny/gated` wants a consent.
fn hub() -> Server {
    let root = tiny_sd();
    let mut files = BTreeMap::new();
    collect(Path::new(&root), "", &mut files);
    Server::answering(move |request| {
        let path = request.path();
        if path.starts_with("/api/models/tiny/sd/revision/main") {
            let file = |(name, content): (&String, &Vec<u8>)| {
                let id = format!("{:040x}", name.len() * 1_000_003 + content.len());
                format!(
                    r#"{{"rfilename":"{name}","blobId":"{id}","size":{}}}"#,
                    content.len()
                )
            };
            let siblings: Vec<String> = files.iter().map(file).collect();
            let body = format!(
                r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#,
                siblings.join(",")
            );
            return Act::answer("200 OK", "", body.as_bytes());
        }
        if path.starts_with("/api/models/tiny/gated/") {
            let why = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted.\r\n";
            return Act::answer("403 Forbidden", why, b"");
        }
        let name = path.strip_prefix(&format!("/tiny/sd/resolve/{COMMIT}/"));
        match name.and_then(|name| files.get(name)) {
            Some(content) => Act::answer("200 OK", "", content),
            None => Act::answer(
                "401 Unauthorized",
                "",
                br#"{"error":"Invalid username or password."}"#,
            ),
        }
    })
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// The program, with an environment of its own: a cache in its folder, and these variables.
fn run(selma: &Selma, args: &str, vars: &[(&str, &str)]) -> Ended {
    let mut command = selma.command(args);
    for (name, _) in std::env::vars() {
        if name.starts_with("HF_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
        .env("HF_HOME", selma.path("hf"))
        .envs(vars.iter().copied());
    let ended = Ended::of(command.output().unwrap());
    assert!(!ended.stderr.contains(TOKEN), "{}", ended.stderr);
    ended
}

#[test]
fn a_model_is_downloaded_once_and_then_used_offline() {
    let (selma, hub) = (Selma::new(), hub());
    let online = [("HF_ENDPOINT", hub.url()), ("HF_TOKEN", TOKEN)];
    let draw = |out: &str, vars: &[(&str, &str)]| {
        run(
            &selma,
            &format!("generate --model tiny/sd --prompt circle --steps 2 --out {out}"),
            vars,
        )
    };
    let offline = [("HF_HUB_OFFLINE", "1")];
    draw("none.png", &offline).failed(&[
        "tiny/sd is neither a file nor a folder",
        "the revision \"main\" is missing",
        "unset HF_HUB_OFFLINE",
    ]);
    let first = draw("a.png", &online).ok();
    assert!(
        first.stderr.contains("tiny/sd at commit 39593d56: "),
        "{}",
        first.stderr
    );
    assert!(first.stderr.contains(" to download\n"), "{}", first.stderr);
    let seen = hub.seen();
    let expected = format!("Bearer {TOKEN}");
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization") == Some(expected.as_str()))
    );
    assert!(!seen.iter().any(|seen| seen.path().contains("/parity/")));

    let again = draw("b.png", &online).ok();
    assert!(!again.stderr.contains("to download"), "{}", again.stderr);
    assert_eq!(hub.seen().len(), seen.len() + 1);
    draw("c.png", &offline).ok();
    assert_eq!(selma.read("a.png"), selma.read("b.png"));
    assert_eq!(selma.read("a.png"), selma.read("c.png"));

    let shown = run(&selma, "inspect tiny/sd --json", &offline).ok();
    let shown: serde_json::Value = serde_json::from_str(shown.text()).unwrap();
    assert!(
        shown["path"]
            .as_str()
            .unwrap()
            .ends_with(&format!("models--tiny--sd/snapshots/{COMMIT}"))
    );
    assert_eq!(shown["prediction_type"], "epsilon");
    assert_eq!(shown["scheduler"], "PNDMScheduler");
    assert_eq!(shown["components"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_on_the_disk_goes_first() {
    let (selma, hub) = (Selma::new(), hub());
    common::copy_folder(Path::new(&tiny_sd()), &selma.path("tiny/sd"));
    let online = [("HF_ENDPOINT", hub.url())];
    run(&selma, "inspect tiny/sd", &online).ok();
    assert!(hub.seen().is_empty());
}

#[test]
fn errors_say_what_can_be_done() {
    let (selma, hub) = (Selma::new(), hub());
    let online = [("HF_ENDPOINT", hub.url())];
    let with_token = [("HF_ENDPOINT", hub.url()), ("HF_TOKEN", TOKEN)];
    let page = format!("{}/tiny/gated", hub.url());
    run(&selma, "inspect tiny/gated", &online).failed(&[
        "is gated (status 403): Access is restricted.",
        &format!("accept its conditions on {page}"),
        "HF_TOKEN",
    ]);
    run(&selma, "inspect tiny/gated", &with_token)
        .failed(&["with the account that the token belongs to"]);
    // A folder that was mistyped looks like an id.
    run(&selma, "inspect models/mimi", &online).failed(&[
        "models/mimi is neither a file nor a folder",
        "is refused (status 401)",
        "there may be no such model",
    ]);
    run(&selma, "inspect tiny/sd:unet.ckpt", &online)
        .failed(&["tiny/sd has no file \"unet.ckpt\"; its weight files are"]);
    run(&selma, "inspect tiny/sd --variant bf16", &online)
        .failed(&["weights of the variant \"bf16\""]);
    run(&selma, "inspect ./models/mimi", &online)
        .failed(&["./models/mimi does not exist, and is not the id of a model"]);
    run(
        &selma,
        "inspect tiny/sd",
        &[("HF_ENDPOINT", "huggingface.co")],
    )
    .failed(&["setting endpoint: must begin with http"]);
    run(
        &selma,
        "inspect tiny/sd",
        &[("HF_ENDPOINT", "http://user:pass@host")],
    )
    .failed(&["setting endpoint: must not hold"]);
}

#[test]
fn recipes_name_models_by_their_ids() {
    let (selma, hub) = (Selma::new(), hub());
    let recipe = include_str!("../../recipes/mini.toml").replace("models/mini", "tiny/sd");
    assert!(recipe.contains("model = \"tiny/sd\""));
    selma.write("recipe.toml", recipe);
    // The first stage does without the model, also without a network.
    let offline = [("HF_HUB_OFFLINE", "1")];
    run(
        &selma,
        "run recipe.toml --out run --stage prompts",
        &offline,
    )
    .ok();
    run(&selma, "run recipe.toml --out run", &offline).failed(&["tiny/sd", "unset HF_HUB_OFFLINE"]);
    // The tiny model gets as far as the stage wants prompts of the miniature's size; the name stays what it was.
    let recorded = String::from_utf8(selma.read("run/recipe.json")).unwrap();
    assert!(
        recorded.contains("\"model\": \"tiny/sd\"") || recorded.contains("\"model\":\"tiny/sd\""),
        "{recorded}"
    );
    assert!(hub.seen().is_empty());
}
