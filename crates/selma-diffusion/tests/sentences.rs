//! Sentence encoders, held against transformers.
//!
//! The fixtures come from `tools/make_sentence_fixtures.py`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{device, files::copy_folder, fixture};
use selma_diffusion::sentences::SentenceEncoder;
use selma_diffusion::tokenizer::{BertTokenizer, TokenizerError};
use selma_diffusion::weights::Weights;

const MODELS: [&str; 2] = ["mpnet", "bert"];

fn path(name: &str) -> PathBuf {
    fixture("sentences").join(name)
}

fn expected() -> Weights {
    Weights::open(path("expected.safetensors")).unwrap()
}

fn load(folder: &Path) -> Result<SentenceEncoder, selma_diffusion::DiffusionError> {
    SentenceEncoder::load(folder, &device())
}

/// Those of the fixtures: of different lengths, of no length, and longer than the models read.
fn texts() -> [String; 7] {
    [
        "green",
        "Two cats, and a large RED star!",
        "Café",
        "",
        "yes",
        "unknownword 3.5 <mask> [SEP] no </s> it <pad> is [UNK] red",
        &"how many stars are there in this painting of a blue circle ".repeat(12),
    ]
    .map(str::to_owned)
}

/// How far two vectors are apart, at the number where they are farthest.
fn distance(a: &[f64], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).abs());
    apart.fold(0.0, f64::max)
}

#[test]
fn texts_fall_into_the_pieces_of_transformers() {
    type Load = fn(&Path) -> Result<BertTokenizer, TokenizerError>;
    // The length of MPNet is in its folder; the other one sentence-transformers tells.
    let loads: [(&str, Load, usize); 2] = [
        ("mpnet", BertTokenizer::load_mpnet, 150),
        ("bert", BertTokenizer::load, 20),
    ];
    for (name, load, length) in loads {
        let tokenizer = load(&path(name)).unwrap();
        let tokenizer = tokenizer.with_max_length(length).unwrap();
        let rows = expected().integers(&format!("{name}.ids")).unwrap();
        for (text, row) in texts().iter().zip(rows.chunks(length)) {
            let wanted: Vec<u32> = row.iter().filter_map(|&id| id.try_into().ok()).collect();
            assert_eq!(tokenizer.encode(text).unwrap().ids, wanted, "{name} {text}");
        }
    }
}

#[test]
fn vectors_are_those_of_transformers_in_a_padded_batch() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for name in MODELS {
        let encoder = load(&path(name)).unwrap();
        let wanted = expected().floats(&format!("{name}.embeddings")).unwrap();
        let width = wanted.len() / texts.len();
        let found = encoder.embed(&texts).unwrap();
        assert_eq!(found.len(), texts.len());
        for ((text, found), wanted) in texts.iter().zip(&found).zip(wanted.chunks(width)) {
            let apart = distance(found, wanted);
            assert!(apart < 1e-5, "{name} {text}: {apart}");
            let length: f64 = found.iter().map(|number| number * number).sum();
            assert!((length - 1.0).abs() < 1e-12, "{length}");
            // Whatever else is read with it, but for rounding.
            let alone = encoder.embed(&[text]).unwrap();
            let found: Vec<f32> = found.iter().map(|&number| number as f32).collect();
            assert!(distance(&alone[0], &found) < 1e-6, "{name} {text}");
        }
        assert!(encoder.embed(&[]).unwrap().is_empty());
        assert_eq!(encoder.dropped_tokens(texts[1]).unwrap(), 0);
        assert!(encoder.dropped_tokens(texts[6]).unwrap() > 0);
    }
}

#[test]
fn the_hash_is_that_of_the_weights() {
    let file = path("bert/model.safetensors");
    let hash = selma_durable::sha256(&file).unwrap();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(load(&path("bert")).unwrap().sha256(), hash);
}

/// A model of any size with what transformers makes of texts, as `tools/sentence_full_size.py --keep` leaves it.
#[test]
fn the_folder_of_the_environment_has_the_vectors_of_transformers() {
    let Some(folder) = std::env::var_os("SELMA_SENTENCES_DIR").map(PathBuf::from) else {
        return;
    };
    let texts = fs::read_to_string(folder.join("texts.json")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let wanted = Weights::open(folder.join("expected.safetensors")).unwrap();
    let wanted = wanted.floats("embeddings").unwrap();
    let found = load(&folder.join("model")).unwrap().embed(&texts).unwrap();
    let rows = found.iter().zip(wanted.chunks(wanted.len() / texts.len()));
    let worst = rows.map(|(found, wanted)| distance(found, wanted));
    let worst = worst.fold(0.0, f64::max);
    println!("{} texts, largest difference {worst:.1e}", texts.len());
    assert!(worst < 1e-5, "{worst}");
}

fn copy(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path(model), folder.path());
    folder
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn without_the_files_of_sentence_transformers_the_mean_is_taken() {
    let folder = copy("mpnet");
    let texts = texts();
    let wanted = load(&path("mpnet")).unwrap().embed(&[&texts[1]]).unwrap();
    for newer in ["pooling_mode\": \"mean", "include_prompt\": \"yes"] {
        let pooling = folder.path().join("1_Pooling/config.json");
        fs::write(pooling, format!("{{\"{newer}\"}}")).unwrap();
        assert!(load(folder.path()).is_ok(), "{newer}");
    }
    fs::remove_file(folder.path().join("modules.json")).unwrap();
    fs::remove_dir_all(folder.path().join("1_Pooling")).unwrap();
    let found = load(folder.path()).unwrap().embed(&[&texts[1]]).unwrap();
    assert_eq!(found, wanted);
}

#[test]
fn what_does_not_fit_is_named() {
    let pooling = "1_Pooling/config.json";
    for (model, file, from, to, named) in [
        (
            "bert",
            "config.json",
            "\"bert\"",
            "\"roberta\"",
            "field model_type: expected bert or mpnet, found \"roberta\"",
        ),
        (
            "bert",
            "config.json",
            "\"model_type\": \"bert\"",
            "\"x\": 1",
            "field model_type: expected bert or mpnet, found \"\"",
        ),
        (
            "bert",
            "config.json",
            "\"model_type\": \"bert\"",
            "\"model_type\": \"mpnet\"",
            "encoder.layer.0.attention.attn.q.weight",
        ),
        (
            "bert",
            "config.json",
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 3",
            "field num_attention_heads",
        ),
        (
            "bert",
            "config.json",
            "\"type_vocab_size\": 2",
            "\"type_vocab_size\": 3",
            "token_type_embeddings.weight: expected floating-point [3, 16]",
        ),
        (
            "bert",
            "config.json",
            "\"type_vocab_size\": 2",
            "\"is_decoder\": true",
            "field is_decoder",
        ),
        (
            "bert",
            "config.json",
            "\"hidden_act\": \"gelu\"",
            "\"hidden_act\": \"tanh\"",
            "config.json is not a valid configuration",
        ),
        (
            "mpnet",
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            "encoder.layer.1.attention.LayerNorm.bias",
        ),
        (
            "mpnet",
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "encoder.layer.2.attention.attn.q.weight",
        ),
        (
            "mpnet",
            "config.json",
            "_buckets\": 32",
            "_buckets\": 16",
            "field relative_attention_num_buckets: expected 32, found 16",
        ),
        (
            "mpnet",
            "config.json",
            "_embeddings\": 152",
            "_embeddings\": 2",
            "field max_position_embeddings: expected at least 3",
        ),
        (
            "mpnet",
            pooling,
            "cls_token\": false",
            "cls_token\": true",
            "field pooling_mode_cls_token: expected false, found true",
        ),
        (
            "mpnet",
            pooling,
            "mean_tokens\": true",
            "mean_tokens\": false",
            "field pooling_mode_mean_tokens: expected true, found false",
        ),
        (
            "mpnet",
            pooling,
            "dimension\": 16",
            "dimension\": 8",
            "field word_embedding_dimension: expected 16, found 8",
        ),
        (
            "mpnet",
            pooling,
            "pooling_mode_cls_token\": false",
            "pooling_mode\": \"max\"",
            "field pooling_mode: expected \"mean\", found \"max\"",
        ),
        (
            "mpnet",
            pooling,
            "{",
            "[",
            "config.json is not a valid configuration",
        ),
        (
            "mpnet",
            "modules.json",
            "models.Normalize",
            "models.Dense",
            "field [2].type: expected Transformer, Pooling or Normalize, found sentence_transformers.models.Dense",
        ),
        (
            "bert",
            "sentence_bert_config.json",
            "\"do_lower_case\": false",
            "\"do_lower_case\": true",
            "field do_lower_case",
        ),
        (
            "bert",
            "sentence_bert_config.json",
            "20",
            "1",
            "length of 1",
        ),
        ("bert", "vocab.txt", "[CLS]\n", "[BEGIN]\n", "\"[CLS]\""),
        (
            "bert",
            "vocab.txt",
            "[CLS]\n",
            "[CLS]\na1\na2\na3\n",
            "field vocab_size: expected at least",
        ),
        (
            "mpnet",
            "tokenizer.json",
            "\"</s>\": 2",
            "\"<end>\": 2",
            "\"</s>\"",
        ),
    ] {
        let folder = copy(model);
        edit(&folder.path().join(file), from, to);
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    for (file, named) in [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("vocab.txt", "neither tokenizer.json nor vocab.txt"),
    ] {
        let folder = copy("bert");
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    let folder = copy("bert");
    fs::write(
        folder.path().join("config_sentence_transformers.json"),
        "{\"default_prompt_name\": \"query\"}",
    )
    .unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("field default_prompt_name: expected null"),
        "{error}"
    );
}
