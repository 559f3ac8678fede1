//! Adapters on a pipeline: beside the weights and in them.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

mod common;

use burn::tensor::FloatDType;
use common::{device, draw, fixture, relative_error, tiny};
use ndarray::ArrayD;
use selma_diffusion::{StableDiffusion, TextToImage};
use selma_lora::{Adapter, AdapterFile, Format, Source, Update, init};

/// Rounding of weights instead of outputs, through four steps.
const TOLERANCE: f32 = 1e-4;

/// An adapter of a layer of the UNet and one of the text encoder.
fn adapter(seed: u64) -> Adapter {
    let unet = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    let text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";
    let module = |path: &str, size| {
        let mut module = init::gaussian(path, &[size, size], 2, 2.0, seed).unwrap();
        for (index, value) in module.b.iter_mut().enumerate() {
            *value = (index as f32 + seed as f32).sin();
        }
        (path.to_owned(), module)
    };
    Adapter::new([module(unet, 8), module(text, 16)])
}

fn latents(pipeline: &StableDiffusion) -> Vec<f32> {
    let request = TextToImage {
        steps: 4,
        ..TextToImage::new(vec!["a red circle".to_owned()], vec![3])
    };
    draw(pipeline, &request).unwrap().latents.values
}

#[test]
fn fused_adapters_draw_what_they_draw_beside_the_weights_and_leave_no_trace() {
    let mut pipeline = tiny();
    let base = latents(&pipeline);
    pipeline.attach(&adapter(1), "one", 0.8).unwrap();
    pipeline.attach(&adapter(2), "two", -0.5).unwrap();
    let beside = latents(&pipeline);
    assert!(relative_error(&beside, &base) > 100.0 * TOLERANCE);
    assert_eq!(pipeline.fuse(), 2);
    let fused = latents(&pipeline);
    assert!(relative_error(&fused, &beside) < TOLERANCE);
    assert_eq!(pipeline.unfuse(), 2);
    assert_eq!(latents(&pipeline), beside);
    pipeline.fuse();
    pipeline.detach("one");
    pipeline.detach("two");
    assert_eq!(latents(&pipeline), base);
}

#[test]
fn switching_and_removing_leaves_the_base_as_it_was_to_the_bit() {
    let mut pipeline = tiny();
    let base = latents(&pipeline);
    pipeline.attach(&adapter(1), "one", 1.0).unwrap();
    let one = latents(&pipeline);
    assert_eq!(pipeline.set_adapter_weight("one", 0.0), 2);
    assert_eq!(latents(&pipeline), base);
    pipeline.set_adapter_weight("one", 1.0);
    assert_eq!(latents(&pipeline), one);
    pipeline.fuse();
    pipeline.set_adapter_weight("one", 0.3);
    pipeline.attach(&adapter(2), "two", 1.0).unwrap();
    pipeline.fuse();
    pipeline.detach("one");
    pipeline.detach("two");
    assert_eq!(latents(&pipeline), base);
    pipeline.attach(&adapter(1), "one", 1.0).unwrap();
    assert_eq!(latents(&pipeline), one);
    assert_eq!(pipeline.set_adapter_weight("other", 1.0), 0);
}

#[test]
fn the_second_text_encoder_is_fused_too() {
    let mut pipeline = StableDiffusion::load(fixture("tiny-sdxl"), &device()).unwrap();
    let path = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj";
    let mut module = init::gaussian(path, &[12, 12], 2, 2.0, 0).unwrap();
    module.b.fill(0.7);
    let base = latents(&pipeline);
    pipeline
        .attach(&Adapter::new([(path.to_owned(), module)]), "one", 1.0)
        .unwrap();
    let beside = latents(&pipeline);
    assert_ne!(beside, base);
    assert_eq!(pipeline.fuse(), 1);
    assert!(relative_error(&latents(&pipeline), &beside) < TOLERANCE);
    assert_eq!(pipeline.set_adapter_weight("one", 0.0), 1);
    assert_eq!(latents(&pipeline), base);
}

#[test]
fn adapters_work_in_half_precision() {
    for first in [true, false] {
        let mut pipeline = tiny();
        pipeline.attach(&adapter(1), "one", 1.0).unwrap();
        let full = latents(&pipeline);
        let mut half = tiny();
        if first {
            half = half.with_dtype(FloatDType::F16);
        }
        half.attach(&adapter(1), "one", 1.0).unwrap();
        half = half.with_dtype(FloatDType::F16);
        assert!(relative_error(&latents(&half), &full) < 0.05);
        half.fuse();
        assert!(relative_error(&latents(&half), &full) < 0.05);
    }
}

/// Updates of other kinds go into the weights, beside LoRAs that are in them or not.
#[test]
fn updates_of_every_kind_come_and_go() {
    let mut pipeline = tiny();
    let base = latents(&pipeline);
    let lora = adapter(1);
    let dense = |path: &String| {
        let delta = lora.modules[path].delta().unwrap();
        (path.clone(), Update::full(delta.into_dyn()).unwrap())
    };
    let file = |updates| AdapterFile {
        updates,
        metadata: Default::default(),
        source: Source {
            path: Default::default(),
            sha256: String::new(),
            format: Format::Kohya,
            dtypes: Default::default(),
        },
    };
    let whole = file(lora.modules.keys().map(dense).collect());
    pipeline.attach(&lora, "lora", 0.5).unwrap();
    let beside = latents(&pipeline);
    pipeline.detach("lora");
    // The same update as a full difference.
    pipeline.attach(&whole, "dense", 0.5).unwrap();
    assert!(relative_error(&latents(&pipeline), &beside) < TOLERANCE);
    assert_eq!(pipeline.set_adapter_weight("dense", 0.0), 2);
    assert_eq!(latents(&pipeline), base);
    pipeline.set_adapter_weight("dense", 0.25);
    pipeline.attach(&lora, "lora", 0.25).unwrap();
    assert!(relative_error(&latents(&pipeline), &beside) < TOLERANCE);
    assert_eq!(pipeline.fuse(), 2);
    assert!(relative_error(&latents(&pipeline), &beside) < TOLERANCE);
    assert_eq!(pipeline.unfuse(), 2);
    assert!(relative_error(&latents(&pipeline), &beside) < TOLERANCE);
    pipeline.detach("dense");
    pipeline.detach("lora");
    assert_eq!(latents(&pipeline), base);
    // An update that does not fit leaves nothing, neither do those before it.
    let mut misfit = whole;
    let wrong = Update::full(ArrayD::ones(vec![3, 3])).unwrap();
    misfit.updates.insert("unet.conv_in".to_owned(), wrong);
    let error = pipeline.attach(&misfit, "misfit", 1.0).unwrap_err();
    assert!(error.to_string().contains("unet.conv_in"), "{error}");
    assert_eq!(latents(&pipeline), base);
}
