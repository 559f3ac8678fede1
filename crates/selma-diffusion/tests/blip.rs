//! BLIP-VQA and ImageReward, held against transformers.
//!
//! The fixtures come from `tools/make_blip_fixtures.py`; the pictures are those of the scorers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{device, files::copy_folder, fixture};
use image::RgbImage;
use selma_diffusion::scorers::{Framing, ImageProcessor, PictureScorer, ScorerKind};
use selma_diffusion::tokenizer::BertTokenizer;
use selma_diffusion::vqa::{BlipVqa, Search};
use selma_diffusion::weights::Weights;

/// A grey level, after the division by the smallest standard deviation.
const LEVEL: f32 = 1.0 / 255.0 / 0.261;
const PICTURES: [&str; 6] = ["tall", "wide", "odd", "square", "small", "grey"];
/// The first of them are asked about.
const ASKED: usize = 3;
const QUESTIONS: [&str; 4] = [
    "Is there a red circle?",
    "what colour is the large star, and how many of them are there?",
    "Café?",
    "Are these cats unknownword 3.5 [SEP] no",
];

fn path(name: &str) -> PathBuf {
    fixture("blip").join(name)
}

fn pictures() -> Vec<RgbImage> {
    let folder = fixture("scorers/pictures");
    let open = |name| selma_diffusion::image::open(folder.join(format!("{name}.png"))).unwrap();
    PICTURES.map(open).to_vec()
}

fn expected() -> Weights {
    Weights::open(path("expected.safetensors")).unwrap()
}

/// Rows of ids, filled up with -1.
fn rows(name: &str) -> Vec<Vec<u32>> {
    let file = expected();
    let width = file.shape(name).unwrap()[1];
    let ids = file.integers(name).unwrap();
    let row = |row: &[i32]| {
        row.iter()
            .filter_map(|&id| u32::try_from(id).ok())
            .collect()
    };
    ids.chunks(width).map(row).collect()
}

fn vqa(beams: usize) -> BlipVqa {
    let model = BlipVqa::load(&path("vqa"), &device()).unwrap();
    let search = Search {
        beams,
        ..model.search()
    };
    model.with_search(search).unwrap()
}

#[test]
fn pictures_are_stretched_as_by_transformers() {
    let framing = Framing::Stretch;
    let processor = ImageProcessor { size: 16, framing };
    let pictures = pictures();
    let pixels = processor.prepare(&pictures[..ASKED].iter().collect::<Vec<_>>(), &device());
    let pixels = pixels.into_data().try_to_vec::<f32>().unwrap();
    let expected = expected().floats("vqa.pixels").unwrap();
    assert_eq!(pixels.len(), expected.len());
    let errors = pixels.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let worst = errors.fold(0.0, f32::max);
    // The fixture's numbers are of f16.
    assert!(worst < LEVEL / 4.0, "{worst}");
}

#[test]
fn questions_fall_into_the_pieces_of_transformers() {
    let tokenizer = BertTokenizer::load(&path("vqa")).unwrap();
    let ids = QUESTIONS.map(|question| tokenizer.encode(question).unwrap().ids);
    assert_eq!(ids.to_vec(), rows("vqa.ids"));
    let short = tokenizer.with_max_length(6).unwrap();
    let cut = short.encode(QUESTIONS[0]).unwrap();
    assert_eq!((cut.ids.len(), cut.dropped), (6, ids[0].len() - 6));
    assert_eq!(cut.ids.last(), ids[0].last());
}

#[test]
fn both_forms_of_the_vocabulary_give_the_same_ids() {
    let words = fs::read_to_string(path("vqa/vocab.txt")).unwrap();
    let words = words
        .lines()
        .zip(0..)
        .map(|(word, id)| (word.to_owned(), serde_json::json!(id)));
    let words: serde_json::Map<String, serde_json::Value> = words.collect();
    let folder = tempfile::tempdir().unwrap();
    let write = |kind: &str| {
        let model = serde_json::json!({"type": kind, "vocab": words});
        let file = serde_json::json!({"added_tokens": [], "model": model});
        fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        BertTokenizer::load(folder.path())
    };
    let tokenizer = write("WordPiece").unwrap();
    let ids = QUESTIONS.map(|question| tokenizer.encode(question).unwrap().ids);
    assert_eq!(ids.to_vec(), rows("vqa.ids"));
    let star = tokenizer.id("star").unwrap();
    let ends = tokenizer.id("##s").unwrap();
    let end = tokenizer.id("[SEP]").unwrap();
    assert_eq!(tokenizer.decode(&[star, ends, end]).unwrap(), "stars");
    let error = write("BPE").unwrap_err().to_string();
    assert!(
        error.contains("holds a BPE model; expected WordPiece"),
        "{error}"
    );
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = BertTokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("neither tokenizer.json nor vocab.txt"),
        "{error}"
    );
}

#[test]
fn answers_are_those_of_transformers_token_by_token() {
    let texts = fs::read_to_string(path("vqa/answers.json")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
    let logits = expected().floats("vqa.logits").unwrap();
    let logits: Vec<&[f32]> = logits
        .chunks(logits.len() / ASKED / QUESTIONS.len())
        .collect();
    for (beams, name) in [(1, "vqa.greedy"), (5, "vqa.beam")] {
        let model = vqa(beams);
        let expected = rows(name);
        for (picture, image) in pictures()[..ASKED].iter().enumerate() {
            let seen = model.look(image);
            for (place, question) in QUESTIONS.iter().enumerate() {
                let place = picture * QUESTIONS.len() + place;
                let answer = model.answer(&seen, question).unwrap();
                assert_eq!(answer.tokens, expected[place], "{name} {place}");
                if beams == 1 {
                    assert_eq!(answer.text, texts[place]);
                }
                let found = answer.yes_no.unwrap();
                let wanted = yes_no(logits[place]);
                let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-4 * b;
                let near = found.into_iter().zip(wanted).all(near);
                assert!(near, "{found:?} {wanted:?}");
            }
        }
    }
}

#[test]
fn an_answer_is_no_longer_than_the_network_has_positions() {
    let short = Search {
        max_length: 3,
        ..Search::default()
    };
    let model = vqa(1).with_search(short).unwrap();
    let answer = model.answer(&model.look(&pictures()[0]), QUESTIONS[0]);
    assert_eq!(answer.unwrap().tokens, rows("vqa.greedy")[0][..3]);
    let long = Search {
        max_length: 33,
        ..short
    };
    let error = model.with_search(long).unwrap_err().to_string();
    assert!(error.contains("at most 32, found 33"), "{error}");
}

/// Probabilities of both words by transformers' logits.
fn yes_no(logits: &[f32]) -> [f64; 2] {
    let tokenizer = BertTokenizer::load(&path("vqa")).unwrap();
    let exponential = |logit: &f32| f64::from(*logit).exp();
    let total: f64 = logits.iter().map(exponential).sum();
    ["yes", "no"].map(|word| exponential(&logits[tokenizer.id(word).unwrap() as usize]) / total)
}

#[test]
fn rewards_are_those_of_python() {
    let scorer = PictureScorer::load(ScorerKind::ImageReward, &path("reward"), &device()).unwrap();
    let pictures = pictures();
    let texts = QUESTIONS.iter().copied().cycle();
    let together: Vec<(&RgbImage, &str)> = pictures.iter().zip(texts).collect();
    let scores = scorer.score(&together).unwrap();
    let expected = expected().floats("reward.scores").unwrap();
    assert_eq!(scores.len(), expected.len());
    let scale = expected
        .iter()
        .fold(0.0, |max: f32, score| max.max(score.abs()));
    for (found, expected) in scores.iter().zip(&expected) {
        let error = (found - f64::from(*expected)).abs();
        assert!(error <= 1e-4 * f64::from(scale), "{found} {expected}");
    }
    assert!(scorer.score(&[]).unwrap().is_empty());
    assert_eq!(scorer.dropped_tokens(QUESTIONS[0]).unwrap(), 0);
    assert!(scorer.dropped_tokens(&"cat ".repeat(40)).unwrap() > 0);
    let error = scorer.embed_texts(&["a"]).unwrap_err().to_string();
    assert!(error.contains("imagereward"), "{error}");
}

#[test]
fn the_hash_is_of_what_answers_owe_to_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path("vqa"), folder.path());
    let hash = || BlipVqa::sha256(folder.path()).unwrap();
    let whole = hash();
    assert_eq!(whole, BlipVqa::sha256(&path("vqa")).unwrap());
    fs::write(folder.path().join("README.md"), "a model").unwrap();
    assert_eq!(hash(), whole);
    for file in ["model.safetensors", "config.json", "vocab.txt"] {
        let file = folder.path().join(file);
        let bytes = fs::read(&file).unwrap();
        let mut other = bytes.clone();
        other.push(b' ');
        fs::write(&file, other).unwrap();
        assert_ne!(hash(), whole, "{}", file.display());
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(hash(), whole);
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let error = BlipVqa::sha256(folder.path()).unwrap_err().to_string();
    assert!(error.contains("found none"), "{error}");
    let of_reward = |path: &Path| PictureScorer::sha256(&ScorerKind::ImageReward, path).unwrap();
    let file = path("reward/ImageReward.pt");
    assert_eq!(of_reward(&path("reward")), of_reward(&file));
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// What loading says of a BLIP whose file was changed.
fn refused(file: &str, from: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path("vqa"), folder.path());
    edit(&folder.path().join(file), from, to);
    let loaded = BlipVqa::load(folder.path(), &device());
    loaded.unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_named() {
    let layers = "\"num_hidden_layers\": 2";
    for (file, from, to, named) in [
        (
            "config.json",
            layers,
            "\"num_hidden_layers\": 3",
            "layers.2.layer_norm1.weight",
        ),
        (
            "config.json",
            layers,
            "\"num_hidden_layers\": 1",
            "layer.1.attention",
        ),
        (
            "config.json",
            "\"patch_size\": 4",
            "\"patch_size\": 8",
            "patch_embedding.weight: expected",
        ),
        (
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 3",
            "field vision_config.num_attention_heads",
        ),
        (
            "config.json",
            "\"sep_token_id\": 4",
            "\"sep_token_id\": 4000",
            "field text_config.sep_token_id",
        ),
        (
            "preprocessor_config.json",
            "\"width\": 16",
            "\"width\": 32",
            "field size: expected 16",
        ),
        (
            "preprocessor_config.json",
            "0.48145466",
            "0.5",
            "field image_mean",
        ),
        (
            "preprocessor_config.json",
            "\"do_resize\": true",
            "\"do_center_crop\": true",
            "field do_center_crop",
        ),
        ("vocab.txt", "[CLS]\n", "[BEGIN]\n", "\"[CLS]\""),
        (
            "vocab.txt",
            "[CLS]\n",
            "[CLS]\na1\na2\na3\na4\n",
            "text_config.vocab_size: expected at least",
        ),
    ] {
        let error = refused(file, from, to);
        assert!(error.contains(named), "{named}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path("reward"), folder.path());
    let load = || {
        let loaded = PictureScorer::load(ScorerKind::ImageReward, folder.path(), &device());
        loaded.unwrap_err().to_string()
    };
    edit(
        &folder.path().join("med_config.json"),
        layers,
        "\"num_hidden_layers\": 1",
    );
    let error = load();
    assert!(
        error.contains("blip.text_encoder.encoder.layer.1"),
        "{error}"
    );
    fs::remove_file(folder.path().join("med_config.json")).unwrap();
    // Heads of 64 channels, of which a tiny network has too little.
    let error = load();
    assert!(error.contains("num_attention_heads"), "{error}");
    copy_folder(&path("reward"), folder.path());
    fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    let error = load();
    assert!(error.contains("vocab.txt"), "{error}");
    let error = BlipVqa::load(&path("reward"), &device()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    let clip = fixture("scorers/hps/HPS_v2_compressed.pt");
    let error = PictureScorer::load(ScorerKind::ImageReward, &clip, &device()).unwrap_err();
    assert!(error.to_string().contains("blip.visual_encoder"), "{error}");
}
