//! What a picture can be asked for, against diffusers: guidance rescaling, negative prompts, every scheduler, pictures to start from, and tiles.
//!
//! The fixtures come from `tools/make_pipeline_fixtures.py`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

mod common;

use burn::tensor::{Tensor, TensorData};
use common::{device, draw, parity, relative_error, tiny};
use image::RgbImage;
use safetensors::SafeTensors;
use selma_diffusion::image::Filter;
use selma_diffusion::models::VaeTiling;
use selma_diffusion::pipeline::{MicroConditioning, Pictures};
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::weights::Weights;
use selma_diffusion::{InitImage, Latents, TextToImage, image as pictures};

/// After a full loop; rounding is amplified from step to step.
const TOLERANCE: f32 = 2e-3;
/// One pass of the VAE.
const VAE_TOLERANCE: f32 = 1e-4;
const PROMPT: &str = "a photo of a red circle left of 2 blue squares";
/// They draw from torch's generator; `tests/schedulers.rs` holds them with noise in closed form.
const RANDOM: [SchedulerKind; 4] = [
    SchedulerKind::Ddpm,
    SchedulerKind::EulerAncestral,
    SchedulerKind::Dpmpp2mSde,
    SchedulerKind::Lcm,
];

fn request(init: Latents) -> TextToImage {
    TextToImage {
        steps: 8,
        guidance: Some(7.5),
        init_latents: Some(init),
        ..TextToImage::new(vec![PROMPT.to_owned()], vec![0])
    }
}

#[track_caller]
fn assert_close(found: &[f32], expected: &Weights, key: &str, tolerance: f32) {
    let (values, _) = expected.require(key).unwrap();
    let error = relative_error(found, &values);
    let file = expected.path().display();
    assert!(error <= tolerance, "{file}: {key}: {error}");
}

fn tensor(weights: &Weights, key: &str) -> Tensor<4> {
    Latents::from_weights(weights, key)
        .unwrap()
        .to_tensor(&device())
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn every_scheduler_draws_as_in_diffusers() {
    for (pipeline, expected) in parity("requests.safetensors") {
        let init = Latents::from_weights(&expected, "init_latents").unwrap();
        for kind in SchedulerKind::ALL {
            if RANDOM.contains(&kind) {
                continue;
            }
            let mut request = request(init.images(0, 1));
            request.scheduler = Some(kind);
            let drawn = draw(&pipeline, &request).unwrap();
            let key = format!("{kind}.latents");
            assert_close(&drawn.latents.values, &expected, &key, TOLERANCE);
        }
    }
}

#[test]
fn guidance_is_rescaled_as_in_diffusers() {
    for (pipeline, expected) in parity("requests.safetensors") {
        let init = Latents::from_weights(&expected, "init_latents").unwrap();
        for share in ["0.3", "1.0"] {
            let mut request = request(init.images(0, 1));
            request.scheduler = Some(SchedulerKind::Ddim);
            request.guidance_rescale = share.parse().unwrap();
            let drawn = draw(&pipeline, &request).unwrap();
            let key = format!("rescale.{share}");
            assert_close(&drawn.latents.values, &expected, &key, TOLERANCE);
        }
    }
}

#[test]
fn each_prompt_may_have_a_negative_one() {
    for (pipeline, expected) in parity("requests.safetensors") {
        let mut request = request(Latents::from_weights(&expected, "init_latents").unwrap());
        request.scheduler = Some(SchedulerKind::Ddim);
        request.prompts.push("two blue squares".to_owned());
        request.seeds.push(1);
        request.negative_prompts = vec!["red".to_owned(), "a blurry photo".to_owned()];
        let drawn = draw(&pipeline, &request).unwrap();
        assert_close(&drawn.latents.values, &expected, "negatives", TOLERANCE);
    }
}

fn picture(file: &Weights, key: &str) -> RgbImage {
    let bytes = std::fs::read(file.path()).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(key).unwrap();
    let [height, width, _] = view.shape().try_into().unwrap();
    RgbImage::from_raw(width as u32, height as u32, view.data().to_vec()).unwrap()
}

#[test]
fn pictures_are_resized_as_pillow_does_it() {
    for (_, expected) in parity("img2img.safetensors") {
        let original = picture(&expected, "picture");
        for key in ["resized", "enlarged"] {
            let wanted = picture(&expected, key);
            let found =
                pictures::resize(&original, wanted.width(), wanted.height(), Filter::Lanczos);
            assert!(found == wanted, "{key}");
        }
    }
}

#[test]
fn a_run_from_a_picture_gives_the_latents_of_diffusers() {
    for (pipeline, expected) in parity("img2img.safetensors") {
        let noise = Latents::from_weights(&expected, "noise").unwrap();
        let clean = Latents::from_weights(&expected, "clean").unwrap();
        for kind in SchedulerKind::ALL {
            if RANDOM.contains(&kind) {
                continue;
            }
            for strength in ["0.3", "0.6", "0.9", "1.0"] {
                let key = format!("{kind}.s{strength}.latents");
                if strength != "0.6" && kind != SchedulerKind::Pndm {
                    continue;
                }
                let mut request = request(noise.clone());
                request.scheduler = Some(kind);
                request.init_image = Some(InitImage {
                    pictures: Pictures::Latents(clean.clone()),
                    strength: strength.parse().ok(),
                });
                let drawn = draw(&pipeline, &request).unwrap();
                assert_close(&drawn.latents.values, &expected, &key, TOLERANCE);
            }
        }
    }
}

#[test]
fn sizes_of_a_run_from_a_picture_are_those_of_diffusers() {
    for (pipeline, expected) in parity("img2img.safetensors") {
        if expected.shape("sizes.latents").is_none() {
            assert!(pipeline.text_encoder_2.is_none());
            continue;
        }
        let mut request = request(Latents::from_weights(&expected, "noise").unwrap());
        request.scheduler = Some(SchedulerKind::UniPc);
        request.micro_conditioning = MicroConditioning {
            crops_coords_top_left: [3, 5],
            negative_original_size: Some([8, 6]),
            negative_crops_coords_top_left: [1, 2],
            ..MicroConditioning::default()
        };
        request.init_image = Some(InitImage {
            pictures: Pictures::Latents(Latents::from_weights(&expected, "clean").unwrap()),
            strength: Some(0.6),
        });
        let drawn = draw(&pipeline, &request).unwrap();
        assert_close(&drawn.latents.values, &expected, "sizes.latents", TOLERANCE);
    }
}

#[test]
fn a_picture_is_encoded_as_in_diffusers() {
    for (pipeline, expected) in parity("img2img.safetensors") {
        let resized = picture(&expected, "resized");
        let pixels = pictures::to_tensor(&[resized], &device()).unwrap();
        let noise = tensor(&expected, "posterior_noise");
        let drawn = pipeline.vae.encode(pixels).sample(noise);
        let clean = drawn.mul_scalar(pipeline.vae_config.scaling_factor);
        assert_close(&values(clean), &expected, "clean", VAE_TOLERANCE);
    }
}

#[test]
fn the_vae_works_in_tiles_as_in_diffusers() {
    for (pipeline, expected) in parity("tiling.safetensors") {
        let tiling = VaeTiling::new(&pipeline.vae_config);
        let decoded = tiling.decode(&pipeline.vae, tensor(&expected, "latents"));
        assert_close(&values(decoded), &expected, "decoded", VAE_TOLERANCE);
        let posterior = tiling.encode(&pipeline.vae, tensor(&expected, "image"));
        assert_close(&values(posterior.mean), &expected, "mean", VAE_TOLERANCE);
        assert_close(
            &values(posterior.logvar),
            &expected,
            "logvar",
            VAE_TOLERANCE,
        );
    }
}

#[test]
fn a_picture_of_one_tile_is_the_same_to_the_bit() {
    let mut pipeline = tiny();
    let latents = Latents::noise(&[1, 2], 4, 8, 7);
    let whole = pipeline.decode(&latents.images(0, 1)).unwrap();
    let pixels = Tensor::from_data(
        TensorData::new(Latents::noise(&[3], 3, 16, 12).values, [1, 3, 16, 12]),
        &device(),
    );
    let mean = values(pipeline.vae.encode(pixels.clone()).mean);
    let tiling = VaeTiling::new(&pipeline.vae_config);
    assert_eq!(values(tiling.encode(&pipeline.vae, pixels).mean), mean);
    pipeline.vae_tiling = Some(tiling);
    let sliced = pipeline.decode(&latents).unwrap();
    assert_eq!(sliced.first(), whole.first());
    assert_eq!(sliced.len(), 2);
}

#[test]
fn a_picture_is_decoded_the_same_to_the_bit_in_any_batch() {
    let pipeline = tiny();
    let latents = Latents::noise(&[1, 2, 3], 4, 6, 7);
    let together = pipeline.decode(&latents).unwrap();
    assert_eq!(together.len(), 3);
    for (index, picture) in together.iter().enumerate() {
        let alone = pipeline.decode(&latents.images(index, 1)).unwrap();
        assert_eq!(alone.first(), Some(picture));
    }
}

#[test]
fn ddim_adds_the_noise_of_the_seed_where_eta_asks_for_it() {
    let pipeline = tiny();
    let mut request = TextToImage::new(vec!["red".to_owned(); 2], vec![3, 4]);
    request.scheduler = Some(SchedulerKind::Ddim);
    request.steps = 4;
    let latents = |request: &TextToImage| draw(&pipeline, request).unwrap().latents;
    let plain = latents(&request);
    request.eta = 1.0;
    let noisy = latents(&request);
    assert!(relative_error(&noisy.values, &plain.values) > 0.1);
    assert_eq!(noisy, latents(&request));
    let alone: Vec<f32> = request
        .batches(1)
        .unwrap()
        .iter()
        .flat_map(|part| latents(part).values)
        .collect();
    assert!(relative_error(&alone, &noisy.values) < 1e-4);
}

#[test]
fn a_picture_depends_on_its_own_seed_and_prompts_and_not_on_its_batch() {
    let pipeline = tiny();
    let shared = RgbImage::from_fn(19, 13, |x, y| image::Rgb([x as u8 * 13, y as u8 * 19, 100]));
    let other = RgbImage::from_pixel(18, 12, image::Rgb([200, 30, 90]));
    let own = vec![shared.clone(), other, shared.clone()];
    let prompts = ["a red circle", "two blue squares", "green"];
    for pictures in [None, Some(vec![shared]), Some(own)] {
        let request = TextToImage {
            steps: 4,
            scheduler: Some(SchedulerKind::EulerAncestral),
            negative_prompts: ["red", "", "blue"].map(str::to_owned).to_vec(),
            guidance_rescale: 0.7,
            height: pictures.as_ref().map(|_| 12),
            width: pictures.as_ref().map(|_| 18),
            init_image: pictures.map(|pictures| InitImage {
                pictures: Pictures::Images(pictures),
                strength: Some(0.75),
            }),
            ..TextToImage::new(prompts.map(str::to_owned).to_vec(), vec![3, 4, 5])
        };
        let together = draw(&pipeline, &request).unwrap();
        for size in [1, 2] {
            let mut apart = Vec::new();
            for part in request.batches(size).unwrap() {
                apart.extend(draw(&pipeline, &part).unwrap().latents.values);
            }
            let error = relative_error(&apart, &together.latents.values);
            assert!(error < 1e-4, "{size}: {error}");
        }
    }
}

#[test]
fn a_picture_to_start_from_sets_the_size_and_the_number_of_calls() {
    let pipeline = tiny();
    let mut request = TextToImage::new(vec!["red".to_owned()], vec![3]);
    request.steps = 4;
    for (kind, strength, calls) in [
        (SchedulerKind::Ddim, 1.0, 4),
        (SchedulerKind::Ddim, 0.5, 2),
        (SchedulerKind::Pndm, 0.5, 3),
        (SchedulerKind::Heun, 0.5, 3),
    ] {
        request.scheduler = Some(kind);
        let picture = RgbImage::from_pixel(19, 13, image::Rgb([200, 30, 90]));
        request.init_image = Some(InitImage::new(picture, strength));
        let mut made = Vec::new();
        let drawn = pipeline.generate(&request, &mut |state| {
            made.push((state.step, state.total));
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(drawn.unwrap().images[0].dimensions(), (18, 12), "{kind}");
        let expected: Vec<_> = (1..=calls).map(|step| (step, calls)).collect();
        assert_eq!(made, expected, "{kind}");
    }
}
