//! The bundled model and the oracle: what the oracle still sees after the VAE.

#![allow(
    clippy::unwrap_used,
    reason = "helpers outside of #[test] functions count as library code for clippy"
)]

use std::path::PathBuf;

use burn::tensor::Device;
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma::diffusion::{Checkpoint, image as pixels};
use selma::eval::Vqa;
use selma::mini::{EvalSet, OracleVqa, SeenScene, layout, questions, render};

/// The folder that the environment variable `SELMA_MINI_MODEL` names, else the bundled one.
fn model() -> PathBuf {
    std::env::var_os("SELMA_MINI_MODEL").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mini")),
        PathBuf::from,
    )
}

/// Scenes of the first `count` held-out prompts (again from the first when there are no more, laid out anew), and
/// what an oracle without fault answers to the questions on each and on the next.
fn scenes(count: usize) -> Vec<(RgbImage, Vec<(String, bool)>)> {
    let set = EvalSet::held_out(1).unwrap();
    let pairs = set.items().iter().zip(set.items().iter().skip(1)).cycle();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    pairs
        .take(count)
        .map(|(own, other)| {
            let scene = layout(&own.spec, &mut rng).unwrap();
            let truth = SeenScene::from(&scene);
            let asked = [&own.spec, &other.spec].map(|spec| questions("", "", spec));
            let asked = asked.into_iter().flatten().map(|question| {
                let expected = truth.answer(question.question.parse().unwrap());
                (question.question, expected)
            });
            (render(&scene), asked.collect())
        })
        .collect()
}

/// The share of right answers about the images as they are, and after the VAE.
fn accuracy(count: usize) -> [f64; 2] {
    let device = Device::flex();
    let vae = Checkpoint::open(model()).unwrap().vae(&device).unwrap();
    let mut right = [0.0; 2];
    let mut asked = 0.0;
    for batch in scenes(count).chunks(32) {
        let images: Vec<RgbImage> = batch.iter().map(|(image, _)| image.clone()).collect();
        let tensor = pixels::to_tensor(&images, &device).unwrap();
        let latents = vae.model.encode(tensor).mean;
        let decoded = pixels::from_tensor(vae.model.decode(latents)).unwrap();
        for ((image, expected), decoded) in batch.iter().zip(&decoded) {
            let texts: Vec<&str> = expected.iter().map(|(text, _)| text.as_str()).collect();
            asked += texts.len() as f64;
            for (image, right) in [image, decoded].into_iter().zip(&mut right) {
                let answers = OracleVqa.answer(image, &texts).unwrap();
                let agree = answers
                    .iter()
                    .zip(expected)
                    .filter(|(answer, (_, expected))| (*answer == "yes") == *expected);
                *right += agree.count() as f64;
            }
        }
    }
    right.map(|right| right / asked)
}

#[test]
fn the_oracle_sees_rendered_scenes_and_through_the_vae() {
    let [rendered, decoded] = accuracy(64);
    assert!(rendered >= 0.99, "as rendered: {rendered}");
    assert!(decoded >= 0.97, "after the VAE: {decoded}");
}

#[test]
#[ignore = "prints the figures of the documentation"]
fn figures() {
    let [rendered, decoded] = accuracy(3200);
    println!("as rendered: {rendered:.4}, after the VAE: {decoded:.4}");
}
