//! Adapters on the three networks of SDXL, and adapters of another family.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

mod common;

use common::{device, draw, fixture, tiny};
use selma_diffusion::{Latents, StableDiffusion, TextToImage};
use selma_lora::{Adapter, Dtype, Format, init};

const FIRST: &str = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";
const SECOND: &str = "text_encoder_2.text_model.encoder.layers.1.mlp.fc1";
const PROJECTION: &str = "text_encoder_2.text_projection";
const UNET: &str = "unet.mid_block.attentions.0.transformer_blocks.2.attn2.to_k";
const ADDED: &str = "unet.add_embedding.linear_1";

/// On these layers, of which the shapes are those of the tiny SDXL.
fn adapter(paths: &[&str]) -> Adapter {
    Adapter::new(paths.iter().map(|&path| {
        let shape = match path {
            FIRST => [8, 8],
            SECOND => [24, 12],
            PROJECTION => [10, 12],
            UNET => [12, 20],
            _ => [16, 34],
        };
        let mut module = init::gaussian(path, &shape, 2, 2.0, 0).unwrap();
        for (index, value) in module.b.iter_mut().enumerate() {
            *value = (index as f32).sin();
        }
        (path.to_owned(), module)
    }))
}

fn latents(pipeline: &StableDiffusion) -> Latents {
    let mut request = TextToImage::new(vec!["a red circle".to_owned()], vec![3]);
    request.steps = 2;
    draw(pipeline, &request).unwrap().latents
}

#[test]
fn adapters_reach_all_three_networks_and_leave_no_residue() {
    let mut pipeline = StableDiffusion::load(fixture("tiny-sdxl"), &device()).unwrap();
    let before = latents(&pipeline);
    let paths = [FIRST, SECOND, PROJECTION, ADDED, UNET];
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Kohya, Format::Diffusers] {
        let file = dir.path().join("adapter.safetensors");
        adapter(&paths).save(&file, format, Dtype::F32).unwrap();
        let adapter = Adapter::load(&file).unwrap();
        let reports = pipeline.attach(&adapter, "adapter", 1.0).unwrap();
        let matched: Vec<&String> = reports.iter().flat_map(|report| &report.matched).collect();
        assert_eq!(matched, paths);
        pipeline.detach("adapter");
        assert_eq!(latents(&pipeline), before);
    }
    for path in paths {
        pipeline.attach(&adapter(&[path]), "one", 1.0).unwrap();
        assert_ne!(latents(&pipeline), before, "{path}");
        pipeline.detach("one");
    }
}

#[test]
fn an_adapter_of_another_family_is_refused_and_changes_nothing() {
    let mut pipeline = tiny();
    let before = latents(&pipeline);
    let refused: [(&[&str], &str); 4] = [
        (&[FIRST, SECOND], SECOND),
        (&[SECOND], SECOND),
        (&[UNET], UNET),
        (&[FIRST], FIRST),
    ];
    for (paths, named) in refused {
        let error = pipeline
            .attach(&adapter(paths), "adapter", 1.0)
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{paths:?}: {error}");
        assert_eq!(latents(&pipeline), before, "{paths:?}");
    }
}
