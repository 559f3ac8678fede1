//! Scores of pictures, held against transformers, OpenCLIP and torchvision.
//!
//! The fixtures come from `tools/make_scorer_fixtures.py`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::{device, files::copy_folder, fixture};
use image::RgbImage;
use selma_diffusion::scorers::{Framing, ImageProcessor, PictureScorer, ScorerKind, StoredClip};
use selma_diffusion::weights::Weights;

/// A grey level, after the division by the smallest standard deviation.
const LEVEL: f32 = 1.0 / 255.0 / 0.261;
/// Of embeddings, which have length 1, and of scores in relation to the largest. Rounding of f32 sums in another order stays below 1e-6.
const TOLERANCE: f64 = 1e-5;

const PICTURES: [&str; 6] = ["tall", "wide", "odd", "square", "small", "grey"];
const TEXTS: [&str; 6] = [
    "a photo of a red circle",
    "two blue squares above a small green triangle on a white background, near the pink cross",
    "three cats",
    "the large yellow star",
    "it's 8k",
    "a painting",
];

fn path(name: &str) -> PathBuf {
    fixture("scorers").join(name)
}

fn pictures() -> Vec<RgbImage> {
    let open = |name| selma_diffusion::image::open(path(&format!("pictures/{name}.png"))).unwrap();
    PICTURES.map(open).to_vec()
}

fn expected(name: &str) -> Vec<f32> {
    let file = Weights::open(path("expected.safetensors")).unwrap();
    file.require(name).unwrap().0
}

#[track_caller]
fn assert_close(name: &str, found: &[f64]) {
    let expected = expected(name);
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = |max: f64, value: &f32| max.max(f64::from(value.abs()));
    let scale = expected.iter().fold(0.0, largest);
    for (found, expected) in found.iter().zip(&expected) {
        let error = (found - f64::from(*expected)).abs();
        assert!(error <= TOLERANCE * scale, "{name}: {found} {expected}");
    }
}

fn aesthetic(head: &str) -> ScorerKind {
    ScorerKind::Aesthetic {
        head: path(&format!("head/{head}.pth")),
    }
}

fn scores(kind: ScorerKind, weights: &str) -> Vec<f64> {
    let scorer = PictureScorer::load(kind, &path(weights), &device()).unwrap();
    let pictures = pictures();
    let together: Vec<(&RgbImage, &str)> = pictures.iter().zip(TEXTS).collect();
    let scores = scorer.score(&together).unwrap();
    // In other company, and with the same text several times, a picture scores the same.
    let [first, second] = [0, 3].map(|index| (together[index].0, TEXTS[0]));
    let both = scorer.score(&[first, second, first]).unwrap();
    for again in [both[0], both[2]] {
        assert!((again - scores[0]).abs() <= 1e-4 * scores[0].abs());
    }
    scores
}

#[test]
fn pictures_are_prepared_as_by_each_library() {
    for (name, framing) in [
        ("clip", Framing::Transformers),
        ("aesthetic", Framing::Torchvision),
        ("hps", Framing::Pad),
    ] {
        let processor = ImageProcessor { size: 16, framing };
        let pictures = pictures();
        let pixels = processor.prepare(&pictures.iter().collect::<Vec<_>>(), &device());
        let pixels = pixels.into_data().try_to_vec::<f32>().unwrap();
        let expected = expected(&format!("{name}.pixels"));
        assert_eq!(pixels.len(), expected.len());
        let errors = pixels.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = errors.fold(0.0, f32::max);
        // The fixture's numbers are of f16, which is half the bound.
        assert!(worst < LEVEL / 4.0, "{name}: {worst}");
    }
}

#[test]
fn the_hash_is_of_weights_and_head_whatever_they_are_called() {
    let hash = |kind: &ScorerKind, path: &Path| PictureScorer::sha256(kind, path).unwrap();
    let clip = hash(&ScorerKind::Clip, &path("clip"));
    assert_eq!(clip, hash(&ScorerKind::PickScore, &path("clip")));
    let (improved, linear) = (aesthetic("improved"), aesthetic("linear"));
    let heads = [&improved, &linear].map(|kind| hash(kind, &path("clip")));
    assert!(heads[0] != heads[1] && !heads.contains(&clip));
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path("hps"), folder.path());
    let [old, new] = ["HPS_v2_compressed.pt", "open_clip_pytorch_model.bin"];
    fs::rename(folder.path().join(old), folder.path().join(new)).unwrap();
    let hps = hash(&ScorerKind::Hps, folder.path());
    assert_eq!(hps, hash(&ScorerKind::Hps, &path("hps").join(old)));
    assert_ne!(hps, clip);
    let nothing = folder.path().join("none.pt");
    let error = PictureScorer::sha256(&ScorerKind::Hps, &nothing).unwrap_err();
    assert!(error.to_string().contains("none.pt"), "{error}");
}

#[test]
fn the_scores_are_those_of_python() {
    assert_close("clip.scores", &scores(ScorerKind::Clip, "clip"));
    let found = scores(ScorerKind::PickScore, "clip");
    assert_close("pickscore.scores", &found);
    assert_close(
        "hps.scores",
        &scores(ScorerKind::Hps, "hps/HPS_v2_compressed.pt"),
    );
    assert_close("aesthetic.scores", &scores(aesthetic("improved"), "clip"));
    assert_close("linear.scores", &scores(aesthetic("linear"), "clip"));
}

#[test]
fn the_embeddings_are_those_of_transformers_and_open_clip() {
    for (kind, weights, name) in [
        (ScorerKind::Clip, "clip", "clip"),
        (ScorerKind::Hps, "hps/HPS_v2_compressed.pt", "hps"),
    ] {
        let scorer = PictureScorer::load(kind, &path(weights), &device()).unwrap();
        let pictures = pictures();
        let images = scorer.embed_images(&pictures.iter().collect::<Vec<_>>());
        assert_close(&format!("{name}.images"), &images.unwrap().concat());
        let texts = scorer.embed_texts(&TEXTS).unwrap();
        assert_close(&format!("{name}.texts"), &texts.concat());
        assert!(scorer.dropped_tokens(TEXTS[1]).unwrap() > 0);
        assert_eq!(scorer.dropped_tokens(TEXTS[2]).unwrap(), 0);
    }
}

/// The red of a square of 4 pixels, as grey levels.
fn red(framing: Framing, image: &RgbImage) -> Vec<i32> {
    let pixels = ImageProcessor { size: 4, framing }.prepare(&[image], &Device::flex());
    assert_eq!(pixels.dims(), [1, 3, 4, 4]);
    let values = pixels.into_data().try_to_vec::<f32>().unwrap();
    let level = |value: &f32| ((value * 0.268_629_55 + 0.481_454_67) * 255.0).round() as i32;
    values.iter().take(16).map(level).collect()
}

#[test]
fn an_odd_pixel_goes_where_each_library_has_it() {
    let wide = |width| RgbImage::from_fn(width, 4, |x, _| image::Rgb([10 * x as u8; 3]));
    let row = |framing, width| red(framing, &wide(width))[..4].to_vec();
    assert_eq!(row(Framing::Transformers, 7), [10, 20, 30, 40]);
    assert_eq!(row(Framing::Torchvision, 7), [20, 30, 40, 50]);
    assert_eq!(row(Framing::Transformers, 9), row(Framing::Torchvision, 9));
}

#[test]
fn what_is_not_square_is_filled_up_with_black() {
    let wide = RgbImage::from_pixel(8, 4, image::Rgb([200; 3]));
    let rows = [[0; 4], [200; 4], [200; 4], [0; 4]].concat();
    assert_eq!(red(Framing::Pad, &wide), rows);
    let line = RgbImage::from_pixel(100, 1, image::Rgb([200; 3]));
    let rows = [[0; 4], [200; 4], [0; 4], [0; 4]].concat();
    assert_eq!(red(Framing::Pad, &line), rows);
    assert_eq!(red(Framing::Pad, &RgbImage::new(0, 0)), [0; 16]);
    assert_eq!(red(Framing::Transformers, &RgbImage::new(0, 0)), [0; 16]);
}

/// A copy of a folder of fixtures.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(folder.join(file), text.replace(from, to)).unwrap();
}

/// What loading says of a CLIP whose file was changed.
fn refused(file: &str, from: &str, to: &str) -> String {
    let folder = copy("clip");
    edit(folder.path(), file, from, to);
    let loaded = PictureScorer::load(ScorerKind::Clip, folder.path(), &device());
    loaded.unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_named() {
    let layers = "\"num_hidden_layers\": 2";
    let error = refused("config.json", layers, "\"num_hidden_layers\": 1");
    assert!(error.contains("layers.1.layer_norm1.bias"), "{error}");
    let error = refused("config.json", layers, "\"num_hidden_layers\": 3");
    assert!(error.contains("layers.2.layer_norm1.bias"), "{error}");
    let error = refused("config.json", "\"patch_size\": 4", "\"patch_size\": 8");
    assert!(
        error.contains("patch_embedding.weight: expected"),
        "{error}"
    );
    let error = refused(
        "config.json",
        "\"num_attention_heads\": 4",
        "\"num_attention_heads\": 3",
    );
    assert!(
        error.contains("config.json: field vision_config.num_attention_heads"),
        "{error}"
    );
    let error = refused("preprocessor_config.json", "0.48145466", "0.5");
    assert!(
        error.contains("preprocessor_config.json: field image_mean"),
        "{error}"
    );
    let error = refused(
        "preprocessor_config.json",
        "\"shortest_edge\": 16",
        "\"shortest_edge\": 32",
    );
    assert!(error.contains("field size: expected 16"), "{error}");

    let load = |kind, weights: &str| {
        let loaded = PictureScorer::load(kind, &path(weights), &device());
        loaded.unwrap_err().to_string()
    };
    let error = load(ScorerKind::Clip, "head/improved.pth");
    assert!(error.contains("config.json"), "{error}");
    let error = load(ScorerKind::Clip, "head");
    assert!(error.contains("found none"), "{error}");
    let head = ScorerKind::Aesthetic {
        head: path("clip/model.safetensors"),
    };
    let error = load(head, "clip");
    assert!(
        error.contains("layers.0.weight") && error.contains("logit_scale"),
        "{error}"
    );
}

/// Without a file that says otherwise heads follow the width, of which a tiny model has too little, and the activation is that of LAION.
#[test]
fn an_open_clip_file_alone_is_told_by_its_shapes() {
    let folder = copy("hps");
    fs::remove_file(folder.path().join("open_clip_config.json")).unwrap();
    let file = folder.path().join("HPS_v2_compressed.pt");
    let stored = StoredClip::open(&file).unwrap();
    let (text, vision) = (&stored.config.text_config, &stored.config.vision_config);
    assert_eq!((text.hidden_size, text.num_hidden_layers), (16, 2));
    assert_eq!((vision.hidden_size, vision.num_hidden_layers), (20, 1));
    assert_eq!((vision.image_size, vision.patch_size), (16, 4));
    assert_eq!(
        (stored.config.projection_dim, vision.num_attention_heads),
        (12, 0)
    );
    let error = PictureScorer::load(ScorerKind::Hps, &file, &device()).unwrap_err();
    assert!(error.to_string().contains("num_attention_heads"), "{error}");
}
