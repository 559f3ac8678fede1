//! The published configurations, and the numbers of parameters that torch counts in what diffusers and transformers
//! build from them.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Counts without drawing any weight.
#[derive(Default)]
struct Count(usize);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += param.lazy_shape().num_elements();
    }
}

fn count(model: &impl Module) -> usize {
    let mut count = Count::default();
    model.visit(&mut count);
    count.0
}

fn config<C: DeserializeOwned>(fields: Value) -> C {
    serde_json::from_value(fields).unwrap()
}

fn unet(fields: Value) -> usize {
    let config: UNet2DConditionModelConfig = config(fields);
    count(&config.init(&Device::flex()).unwrap())
}

fn text_encoder(fields: Value) -> usize {
    let config: ClipTextConfig = config(fields);
    count(&config.init(&Device::flex()).unwrap())
}

#[test]
fn the_unets() {
    assert_eq!(unet(json!({"cross_attention_dim": 768})), 859_520_964);
    let sd2 = json!({
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "upcast_attention": true,
        "use_linear_projection": true,
    });
    assert_eq!(unet(sd2), 865_910_724);
    let sdxl = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "upcast_attention": null,
        "use_linear_projection": true,
    });
    assert_eq!(unet(sdxl), 2_567_463_684);
}

#[test]
fn the_text_encoders() {
    let vit_l = json!({
        "architectures": ["CLIPTextModel"],
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
    });
    assert_eq!(text_encoder(vit_l), 123_060_480);
    let vit_h = json!({
        "architectures": ["CLIPTextModel"],
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 23,
    });
    assert_eq!(text_encoder(vit_h), 340_387_840);
    let big_g = json!({
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
    });
    assert_eq!(text_encoder(big_g), 694_659_840);
}

#[test]
fn the_vae() {
    let config: AutoencoderKLConfig = config(json!({
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "layers_per_block": 2,
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
    }));
    assert_eq!(count(&config.init(&Device::flex()).unwrap()), 83_653_863);
}

#[test]
fn added_conditions_that_are_not_those_of_sdxl_are_refused_by_field() {
    let fails = |fields: Value| {
        let config: UNet2DConditionModelConfig = config(fields);
        config.validate().unwrap_err().to_string()
    };
    for (fields, field) in [
        (
            json!({"addition_embed_type": "text"}),
            "addition_embed_type",
        ),
        (
            json!({"addition_embed_type": "text_time"}),
            "addition_time_embed_dim",
        ),
        (
            json!({"addition_embed_type": "text_time", "addition_time_embed_dim": 8}),
            "projection_class_embeddings_input_dim",
        ),
        (
            json!({
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 48,
            }),
            "more than 48",
        ),
    ] {
        let error = fails(fields);
        assert!(error.contains(field), "{error}");
    }
}
