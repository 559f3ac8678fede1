//! The tokenizer against transformers' `CLIPTokenizer`, and against folders that are not in order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use selma_diffusion::tokenizer::{ClipTokenizer, TokenizerError};
use selma_diffusion::{Checkpoint, CheckpointOptions};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Cases {
    strings: Vec<String>,
    #[serde(flatten)]
    tokenizers: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    pad_token_id: u32,
    ids: Vec<Vec<u32>>,
    dropped: Vec<usize>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A copy of a pipeline's tokenizer that a test may change.
fn copy(pipeline: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join(pipeline).join("tokenizer")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn fail(folder: &tempfile::TempDir) -> TokenizerError {
    ClipTokenizer::load(folder.path()).unwrap_err()
}

#[test]
fn ids_are_those_of_transformers() {
    let cases: Cases =
        serde_json::from_slice(&fs::read(fixtures().join("tokenizer_cases.json")).unwrap())
            .unwrap();
    assert!(cases.strings.len() >= 60 && cases.tokenizers.len() == 3);
    for (folder, expected) in &cases.tokenizers {
        let tokenizer = ClipTokenizer::load(&fixtures().join(folder)).unwrap();
        assert_eq!(tokenizer.pad_token_id(), expected.pad_token_id);
        for (i, text) in cases.strings.iter().enumerate() {
            let encoded = tokenizer.encode(text).unwrap();
            assert_eq!(encoded.ids, expected.ids[i], "{folder}: {text:?}");
            assert_eq!(encoded.dropped, expected.dropped[i], "{folder}: {text:?}");
        }
    }
}

#[test]
fn truncation_keeps_the_end_token_and_counts_what_it_drops() {
    let tokenizer = ClipTokenizer::load(&fixtures().join("tiny-sd/tokenizer")).unwrap();
    assert_eq!(tokenizer.max_length(), 77);
    let encoded = tokenizer.encode(&"the ".repeat(80)).unwrap();
    assert_eq!((encoded.ids.len(), encoded.dropped), (77, 5));
    assert_eq!(encoded.cut, "the ".repeat(5));
    assert_eq!(encoded.ids[76], tokenizer.eos_token_id());
    let short = tokenizer.clone().with_max_length(2).unwrap();
    let encoded = short.encode("the Cat").unwrap();
    assert_eq!(encoded.cut, "the Cat");
    assert_eq!(
        encoded.ids,
        [tokenizer.bos_token_id(), tokenizer.eos_token_id()]
    );
    assert!(encoded.dropped >= 2);
    assert!(matches!(
        tokenizer.with_max_length(1),
        Err(TokenizerError::MaxLength { found: 1 })
    ));
}

#[test]
fn the_special_tokens_map_goes_before_the_configuration() {
    // As SD 2 has it: the configuration pads with the end token, the map with "!".
    let folder = copy("tiny-sd-v");
    assert_eq!(
        ClipTokenizer::load(folder.path()).unwrap().pad_token_id(),
        0
    );
    fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
    let tokenizer = ClipTokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.pad_token_id(), tokenizer.eos_token_id());
}

#[test]
fn added_tokens_in_the_configuration_go_before_the_special_tokens_map() {
    let folder = copy("tiny-sd-v");
    change(&folder.path().join("tokenizer_config.json"), |config| {
        let token = |content: &str| json!({"content": content, "lstrip": false, "rstrip": false, "normalized": true, "single_word": false, "special": true});
        config["added_tokens_decoder"] =
            json!({"632": token("<|startoftext|>"), "633": token("<|endoftext|>")});
    });
    let tokenizer = ClipTokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.pad_token_id(), tokenizer.eos_token_id());
}

#[test]
fn both_forms_of_the_vocabulary_and_of_merges_give_the_same_ids() {
    let pairs = copy("tiny-sd-v");
    let joined = copy("tiny-sd-v");
    change(&joined.path().join("tokenizer.json"), |file| {
        for merge in file["model"]["merges"].as_array_mut().unwrap() {
            *merge = json!(format!(
                "{} {}",
                merge[0].as_str().unwrap(),
                merge[1].as_str().unwrap()
            ));
        }
    });
    let split = copy("tiny-sd");
    fs::remove_file(split.path().join("special_tokens_map.json")).unwrap();
    let text = "a red circle, the painting's horses";
    let ids = |folder: &tempfile::TempDir| {
        let tokenizer = ClipTokenizer::load(folder.path())
            .unwrap()
            .with_max_length(30)
            .unwrap();
        assert_eq!(tokenizer.vocab_size(), 634);
        tokenizer.encode(text).unwrap().ids[..12].to_vec()
    };
    assert_eq!(ids(&pairs), ids(&joined));
    assert_eq!(ids(&pairs), ids(&split));
}

#[test]
fn without_a_limit_a_text_has_77_tokens() {
    for limit in [json!(1e30), json!(null)] {
        let folder = copy("tiny-sd-v");
        change(&folder.path().join("tokenizer_config.json"), |config| {
            config["model_max_length"] = limit
        });
        assert_eq!(ClipTokenizer::load(folder.path()).unwrap().max_length(), 77);
    }
    let folder = copy("tiny-sd-v");
    change(&folder.path().join("tokenizer_config.json"), |config| {
        config["model_max_length"] = json!(-5)
    });
    assert!(matches!(fail(&folder), TokenizerError::MaxLength { .. }));
}

#[test]
fn an_incomplete_folder_is_named() {
    for file in ["vocab.json", "merges.txt"] {
        let folder = copy("tiny-sd");
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = fail(&folder);
        assert!(
            matches!(&error, TokenizerError::NoVocabulary { path } if path == folder.path()),
            "{error}"
        );
    }
    let nowhere = ClipTokenizer::load(Path::new("no/such/folder")).unwrap_err();
    assert!(nowhere.to_string().contains("no/such/folder"), "{nowhere}");
}

#[test]
fn files_that_are_not_in_order_are_named() {
    for (pipeline, file, content, expected) in [
        ("tiny-sd", "vocab.json", r#"{"a": 1"#, "vocab.json"),
        ("tiny-sd", "vocab.json", r#"{"a": -1}"#, "vocab.json"),
        (
            "tiny-sd",
            "merges.txt",
            "#version: 0.2\nt h\nthe\n",
            "line 3 merges \"the \"",
        ),
        (
            "tiny-sd",
            "merges.txt",
            "t h e\n",
            "line 1 merges \"t h e\"",
        ),
        (
            "tiny-sd",
            "special_tokens_map.json",
            "[]",
            "special_tokens_map.json",
        ),
        (
            "tiny-sd",
            "special_tokens_map.json",
            r#"{"eos_token": 3}"#,
            "special_tokens_map.json",
        ),
        (
            "tiny-sd",
            "special_tokens_map.json",
            r#"{"pad_token": "<pad>"}"#,
            "pad_token \"<pad>\"",
        ),
        (
            "tiny-sd",
            "special_tokens_map.json",
            r#"{"bos_token": ""}"#,
            "bos_token \"\"",
        ),
        ("tiny-sd-v", "tokenizer.json", "{}", "tokenizer.json"),
    ] {
        let folder = copy(pipeline);
        fs::write(folder.path().join(file), content).unwrap();
        let error = fail(&folder).to_string();
        assert!(error.contains(expected), "{file}: {error}");
    }
}

#[test]
fn another_model_and_merges_outside_the_vocabulary_are_refused() {
    let folder = copy("tiny-sd-v");
    change(&folder.path().join("tokenizer.json"), |file| {
        file["model"]["type"] = json!("WordPiece")
    });
    assert!(matches!(fail(&folder), TokenizerError::NotBpe { found, .. } if found == "WordPiece"));
    for merge in [
        "qq zz",
        // Two tokens, but what they make is not one; in the second case it is longer than any.
        "e t",
        "<|startoftext|> <|endoftext|>",
    ] {
        let folder = copy("tiny-sd");
        fs::write(folder.path().join("merges.txt"), merge).unwrap();
        let error = fail(&folder);
        assert!(
            matches!(&error, TokenizerError::Merge { line: 1, found, .. } if found == merge),
            "{error}"
        );
        let folder = copy("tiny-sd-v");
        change(&folder.path().join("tokenizer.json"), |file| {
            file["model"]["merges"] = json!([merge])
        });
        let error = fail(&folder);
        assert!(
            matches!(&error, TokenizerError::Merge { line: 1, found, .. } if found == merge),
            "{error}"
        );
    }
}

#[test]
fn one_folder_for_both_text_encoders_fills_up_with_the_tokens_of_each() {
    let tokenizers = |tokenizer: Option<PathBuf>| {
        let options = CheckpointOptions {
            tokenizer,
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(fixtures().join("tiny-sdxl"), options).unwrap();
        [
            checkpoint.tokenizer().unwrap(),
            checkpoint.tokenizer_2().unwrap(),
        ]
    };
    let own = tokenizers(None);
    assert_ne!(own[0].pad_token_id(), own[1].pad_token_id());
    let shared = tokenizers(Some(fixtures().join("tiny-sdxl/tokenizer")));
    for (shared, own) in shared.iter().zip(&own) {
        assert_eq!(shared.pad_token_id(), own.pad_token_id());
        // In the second one the pad token also stands for itself within a text.
        for text in ["", "a red circle!", "wow! two"] {
            assert_eq!(shared.encode(text).unwrap(), own.encode(text).unwrap());
        }
    }
}

#[derive(Deserialize)]
struct Standard {
    strings: Vec<String>,
    vocab_size: usize,
    sd1: Unpadded,
    sd2: Unpadded,
}

#[derive(Deserialize)]
struct Unpadded {
    pad_token_id: u32,
    ids: Vec<Vec<u32>>,
}

#[test]
fn the_standard_vocabulary_is_that_of_openai() {
    let file = fs::read(fixtures().join("standard_tokens.json")).unwrap();
    let cases: Standard = serde_json::from_slice(&file).unwrap();
    for (pad, expected) in [("<|endoftext|>", cases.sd1), ("!", cases.sd2)] {
        let tokenizer = ClipTokenizer::standard(pad).unwrap();
        assert_eq!(tokenizer.vocab_size(), cases.vocab_size);
        assert_eq!(tokenizer.max_length(), 77);
        assert_eq!(tokenizer.pad_token_id(), expected.pad_token_id);
        for (text, mut ids) in cases.strings.iter().zip(expected.ids) {
            ids.resize(77, expected.pad_token_id);
            assert_eq!(tokenizer.encode(text).unwrap().ids, ids, "{text:?}");
        }
    }
    let error = ClipTokenizer::standard("<pad>").unwrap_err();
    assert!(matches!(error, TokenizerError::MissingToken { .. }));
}
