//! The bundled model and the oracle: what the oracle still sees after the VAE, and how far the model follows its prompts.

#![allow(
    clippy::unwrap_used,
    reason = "helpers outside of #[test] functions count as library code for clippy"
)]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma::diffusion::schedulers::SchedulerKind;
use selma::diffusion::{Checkpoint, StableDiffusion, TextToImage, image as pixels};
use selma::eval::dsg::Aggregation;
use selma::eval::{EvalError, EvalOptions, EvalResult, ImageSource, QuestionSet, Vqa, evaluate};
use selma::mini::{EvalItem, EvalSet, OracleVqa, SeenScene, layout, questions, render};

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

/// Pictures by the ids of their prompts.
struct Drawn(HashMap<String, RgbImage>);

impl ImageSource for Drawn {
    fn load(&self, id: &str) -> Result<RgbImage, EvalError> {
        Ok(self.0.get(id).cloned().unwrap())
    }
}

/// How far the model follows prompts, one picture each.
fn faithfulness(
    pipeline: &StableDiffusion,
    items: &[EvalItem],
    scheduler: SchedulerKind,
    steps: usize,
    guidance: f64,
) -> EvalResult {
    let mut drawn = HashMap::new();
    for (batch, seed) in items.chunks(32).zip((0..).step_by(32)) {
        let prompts = batch.iter().map(|item| item.text.clone()).collect();
        let mut request = TextToImage::new(prompts, (seed..seed + batch.len() as u64).collect());
        request.scheduler = Some(scheduler);
        request.steps = steps;
        request.guidance = Some(guidance);
        let go_on = &mut |_: selma::diffusion::pipeline::Denoising<'_>| ControlFlow::Continue(());
        let images = pipeline.generate(&request, go_on).unwrap().images;
        drawn.extend(batch.iter().map(|item| item.id.clone()).zip(images));
    }
    let rows = items.iter().flat_map(EvalItem::questions).collect();
    let questions = QuestionSet::new(rows).unwrap();
    let options = EvalOptions {
        aggregation: Aggregation::Selma,
        ..EvalOptions::default()
    };
    evaluate(
        "miniature",
        &questions,
        &Drawn(drawn),
        &OracleVqa,
        &options,
        |_| ControlFlow::Continue(()),
    )
    .unwrap()
}

#[test]
fn the_model_draws_most_of_what_it_is_told_and_more_with_guidance() {
    let set = EvalSet::held_out(1).unwrap();
    let items: Vec<EvalItem> = set.items().iter().step_by(5).cloned().collect();
    let pipeline = StableDiffusion::load(model(), &Device::flex()).unwrap();
    let score = |guidance| {
        let result = faithfulness(&pipeline, &items, SchedulerKind::Dpmpp2m, 8, guidance);
        result.overall.mean
    };
    let (unguided, guided) = (score(1.0), score(4.0));
    assert!(guided > 0.6, "{guided}");
    assert!(
        guided > unguided,
        "{guided} with guidance, {unguided} without"
    );
}

#[test]
#[ignore = "prints the figures of the documentation"]
fn figures() {
    let [rendered, decoded] = accuracy(3200);
    println!("as rendered: {rendered:.4}, after the VAE: {decoded:.4}");
    let set = EvalSet::held_out(1).unwrap();
    let pipeline = StableDiffusion::load(model(), &Device::flex()).unwrap();
    let ddim = SchedulerKind::Ddim;
    let dpmpp = SchedulerKind::Dpmpp2m;
    for (scheduler, steps, guidances) in [
        (dpmpp, 8, &[1.0, 2.0, 3.0, 4.0, 5.0, 7.0][..]),
        (dpmpp, 15, &[4.0]),
        (ddim, 15, &[4.0]),
        (ddim, 50, &[4.0]),
    ] {
        for &guidance in guidances {
            let result = faithfulness(&pipeline, set.items(), scheduler, steps, guidance);
            let kinds = result.by_broad.iter();
            let kinds: Vec<String> = kinds
                .map(|(kind, estimate)| format!("{kind} {:.1}", 100.0 * estimate.mean))
                .collect();
            println!(
                "{scheduler}, {steps} steps, guidance {guidance}: {:.1} ({:.1} to {:.1}); {}",
                100.0 * result.overall.mean,
                100.0 * result.overall.low,
                100.0 * result.overall.high,
                kinds.join(", ")
            );
        }
    }
}
