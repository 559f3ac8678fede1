//! What cannot be drawn is refused with its reason, before any step where that can be known.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use common::{device, draw, fixture, tiny};
use image::RgbImage;
use selma_diffusion::pipeline::Pictures;
use selma_diffusion::schedulers::{SchedulerKind, TimestepSpacing};
use selma_diffusion::{
    DiffusionError, InitImage, Latents, Origin, StableDiffusion, TextToImage, image as pictures,
};

fn request() -> TextToImage {
    TextToImage {
        steps: 4,
        ..TextToImage::new(vec!["a red circle".to_owned()], vec![3])
    }
}

fn picture() -> RgbImage {
    RgbImage::from_pixel(16, 16, image::Rgb([200, 30, 90]))
}

#[test]
fn a_request_that_cannot_be_met_is_refused_before_any_step() {
    type Spoil = fn(&mut TextToImage);
    let pipeline = tiny();
    let cases: [(&[&str], Spoil); 14] = [
        (&["strength", "0 to 1", "1.5"], |request| {
            request.init_image = Some(InitImage::new(picture(), 1.5));
        }),
        (&["strength", "NaN"], |request| {
            request.init_image = Some(InitImage::new(picture(), f64::NAN));
        }),
        (&["strength", "no step of 4 is left", "0.2"], |request| {
            request.init_image = Some(InitImage::new(picture(), 0.2));
        }),
        (&["initial images", "1, one a prompt", "2"], |request| {
            request.init_image = Some(InitImage {
                pictures: Pictures::Images(vec![picture(), picture()]),
                strength: Some(0.5),
            });
        }),
        (&["initial image's latents", "[1, 4, 8, 8]"], |request| {
            request.width = Some(16);
            request.height = Some(16);
            request.init_image = Some(InitImage {
                pictures: Pictures::Latents(Latents::noise(&[0], 4, 3, 3)),
                strength: Some(0.5),
            });
        }),
        (&["width", "multiple of 2", "17"], |request| {
            request.init_image = Some(InitImage::new(picture(), 0.5));
            request.width = Some(17);
        }),
        (&["height", "found 0"], |request| {
            request.init_image = Some(InitImage::new(RgbImage::new(16, 1), 0.5));
        }),
        (&["negative prompts", "one for all", "2"], |request| {
            request.negative_prompts = vec![String::new(), String::new()];
        }),
        (&["guidance_rescale", "-0.1"], |request| {
            request.guidance_rescale = -0.1;
        }),
        (&["guidance", "finite", "inf"], |request| {
            request.guidance = Some(f64::INFINITY);
        }),
        (
            &["latents given for the initial", "not finite in image 1"],
            |request| {
                let mut latents = Latents::noise(&[0], 4, 8, 8);
                latents.values[7] = f32::INFINITY;
                request.init_image = Some(InitImage {
                    pictures: Pictures::Latents(latents),
                    strength: Some(0.5),
                });
            },
        ),
        (&["eta", "0 to 1", "1.5"], |request| {
            request.scheduler = Some(SchedulerKind::Ddim);
            request.eta = 1.5;
        }),
        (&["euler", "eta", "0.5"], |request| {
            request.scheduler = Some(SchedulerKind::Euler);
            request.eta = 0.5;
        }),
        (&["initial latents", "not finite"], |request| {
            let mut latents = Latents::noise(&[0], 4, 8, 8);
            latents.values[0] = f32::NAN;
            request.init_latents = Some(latents);
        }),
    ];
    for (parts, spoil) in cases {
        let mut request = request();
        spoil(&mut request);
        let error = pipeline
            .generate(&request, &mut |_| panic!("a step was made"))
            .unwrap_err()
            .to_string();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    assert!(request().batches(0).is_err());
}

#[track_caller]
fn assert_origin(error: DiffusionError, expected: Origin, text: &str) {
    let message = error.to_string();
    match error {
        DiffusionError::NonFinite { origin, .. } => assert_eq!(origin, expected, "{message}"),
        other => panic!("{other}"),
    }
    assert!(message.contains(text), "{text}: {message}");
}

#[test]
fn numbers_that_are_not_finite_are_found_where_they_appear() {
    let spoiled = |mut spoil: Box<dyn FnMut(&mut selma_diffusion::StableDiffusion)>| {
        let mut pipeline = tiny();
        spoil(&mut pipeline);
        pipeline
    };
    let unet = spoiled(Box::new(|pipeline| {
        let weight = &mut pipeline.unet.conv_in.weight;
        *weight = weight.clone().map(|weight| weight.mul_scalar(f32::NAN));
    }));
    let error = draw(&unet, &request()).unwrap_err();
    let first = Origin::UNet { step: 1, total: 5 };
    assert_origin(error, first, "nor is the weight conv_in.weight");

    let vae = spoiled(Box::new(|pipeline| {
        let weight = &mut pipeline.vae.decoder.conv_out.weight;
        *weight = weight
            .clone()
            .map(|weight| weight.mul_scalar(f32::INFINITY));
    }));
    let error = draw(&vae, &request()).unwrap_err();
    assert_origin(error, Origin::Decoder, "decoder.conv_out.weight");

    let encoder = spoiled(Box::new(|pipeline| {
        let weight = &mut pipeline.vae.encoder.conv_in.weight;
        *weight = weight.clone().map(|weight| weight.mul_scalar(f32::NAN));
    }));
    let mut from_picture = request();
    from_picture.init_image = Some(InitImage::new(picture(), 0.5));
    let error = draw(&encoder, &from_picture).unwrap_err();
    assert_origin(error, Origin::Encoder, "encoder.conv_in.weight");

    // Nothing but the pooled output sees the projection.
    let mut pooled = StableDiffusion::load(fixture("tiny-sdxl"), &device()).unwrap();
    let encoder = &mut pooled.text_encoder_2.as_mut().unwrap().model;
    let weight = &mut encoder.text_projection.as_mut().unwrap().weight;
    *weight = weight.clone().map(|weight| weight.mul_scalar(f32::NAN));
    let error = draw(&pooled, &request()).unwrap_err();
    assert_origin(error, Origin::PooledText, "text_projection.weight");

    let mut latents = Latents::noise(&[1, 2], 4, 8, 8);
    latents.values[300] = f32::NAN;
    let error = tiny().decode(&latents).unwrap_err();
    assert_origin(error, Origin::Latents, "in image 2");

    // Without signal at the first timestep, a prediction of the noise says nothing of the picture.
    let no_signal = spoiled(Box::new(|pipeline| {
        pipeline.scheduler = Some(SchedulerKind::Ddim);
        pipeline.scheduler_config.rescale_betas_zero_snr = Some(true);
        pipeline.scheduler_config.timestep_spacing = Some(TimestepSpacing::Trailing);
    }));
    let error = draw(&no_signal, &request()).unwrap_err();
    let step = Origin::Scheduler { step: 1, total: 4 };
    assert_origin(error, step, "after step 1 of 4");
}

#[test]
fn latents_that_the_vae_does_not_have_are_refused() {
    let pipeline = tiny();
    let mut short = Latents::noise(&[1], 4, 8, 8);
    short.values.pop();
    for latents in [
        Latents::noise(&[1], 3, 8, 8),
        Latents::noise(&[], 4, 8, 8),
        short,
    ] {
        let error = pipeline.decode(&latents).unwrap_err().to_string();
        assert!(error.contains("[images, 4, height, width]"), "{error}");
    }
}

#[test]
fn a_file_that_is_no_picture_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("picture.png");
    std::fs::write(&text, "not a picture").unwrap();
    let torn = dir.path().join("torn.png");
    let png = selma_diffusion::png::encode(&picture(), None).unwrap();
    std::fs::write(&torn, &png[..png.len() / 2]).unwrap();
    for path in [text, torn] {
        let error = pictures::open(&path).unwrap_err();
        assert!(matches!(&error, DiffusionError::NoPicture { path: named, .. } if *named == path));
    }
    let error = pictures::open(dir.path().join("none.png")).unwrap_err();
    assert!(matches!(error, DiffusionError::Io { .. }), "{error}");
    assert!(pictures::open(fixture("tiny-sd")).is_err());
}
