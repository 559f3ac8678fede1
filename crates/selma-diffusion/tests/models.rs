//! Parity of the networks with diffusers and transformers, at the level of operations, blocks and models.
//!
//! The fixtures come from `tools/make_diffusion_fixtures.py`. Folders of the same layout that the environment variable
//! `SELMA_PARITY_DIR` names (separated by colons) are checked too.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use common::{device, fixture, folders};
use selma_diffusion::models::{
    AddedConditioning, ClipTextModel, Conditioning, TimeIds, UNet2DConditionModel,
    timestep_embedding,
};
use selma_diffusion::weights::Weights;
use selma_diffusion::{Checkpoint, Component};

/// Per model forward. Rounding of f32 sums in another order stays below 4e-6.
const TOLERANCE: f32 = 1e-4;

fn tensor<const D: usize>(weights: &Weights, name: &str) -> Tensor<D> {
    let (values, shape) = weights.require(name).unwrap();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn numbers(weights: &Weights, name: &str) -> Vec<f64> {
    let (values, _) = weights.require(name).unwrap();
    values.into_iter().map(f64::from).collect()
}

/// The largest difference, relative to the largest expected value.
#[track_caller]
fn assert_close<const D: usize>(found: Tensor<D>, weights: &Weights, name: &str) {
    let (expected, shape) = weights.require(name).unwrap();
    assert_eq!(found.dims().to_vec(), shape, "{name}");
    let found = found.into_data().try_to_vec::<f32>().unwrap();
    let scale = expected
        .iter()
        .fold(0f32, |max, value| max.max(value.abs()));
    let error = found
        .iter()
        .zip(&expected)
        .fold(0f32, |max, (found, expected)| {
            max.max((found - expected).abs())
        });
    assert!(
        error <= TOLERANCE * scale,
        "{}: {name}: error {error} at scale {scale}",
        weights.path().display()
    );
}

fn parity(folder: &Path, name: &str) -> Weights {
    Weights::open(folder.join("parity").join(name)).unwrap()
}

fn unet(folder: &Path) -> UNet2DConditionModel {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.unet(&device()).unwrap().model
}

/// The conditions of the fixture of the UNet.
fn conditioning(fixture: &Weights) -> Conditioning {
    let added = fixture.shape("text_embeds").map(|_| AddedConditioning {
        text_embeds: tensor(fixture, "text_embeds"),
        time_ids: numbers(fixture, "time_ids")
            .chunks(TimeIds::COUNT)
            .map(|ids| {
                let ids: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
                TimeIds {
                    original_size: [ids[0], ids[1]],
                    crops_coords_top_left: [ids[2], ids[3]],
                    target_size: [ids[4], ids[5]],
                }
            })
            .collect(),
    });
    Conditioning {
        context: tensor(fixture, "encoder_hidden_states"),
        added,
    }
}

fn check_text_encoder(encoder: &ClipTextModel, fixture: &Weights) {
    let ids: Vec<i32> = fixture.integers("input_ids").unwrap();
    let shape = fixture.shape("input_ids").unwrap().to_vec();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device());
    let output = encoder.forward(ids);
    let penultimate = output.hidden_states[output.hidden_states.len() - 2].clone();
    assert_close(output.last_hidden_state, fixture, "last_hidden_state");
    assert_close(penultimate, fixture, "penultimate_hidden_state");
    let pooled = match encoder.text_projection {
        Some(_) => "text_embeds",
        None => "pooler_output",
    };
    assert_close(output.pooled, fixture, pooled);
}

#[test]
fn the_text_encoders_give_what_transformers_gives() {
    for folder in folders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let encoder = checkpoint.text_encoder(&device()).unwrap().model;
        check_text_encoder(&encoder, &parity(&folder, "clip.safetensors"));
        if checkpoint.is_xl() {
            let encoder = checkpoint.text_encoder_2(&device()).unwrap().model;
            check_text_encoder(&encoder, &parity(&folder, "clip_2.safetensors"));
        }
    }
}

#[test]
fn the_operations_of_the_unet_give_what_diffusers_gives() {
    for folder in folders() {
        let fixture = parity(&folder, "op.safetensors");
        let unet = unet(&folder);
        let device = device();
        let times = numbers(&fixture, "timesteps");
        assert_close(
            timestep_embedding(&times, 32, true, 0.0, &device),
            &fixture,
            "timestep_embedding.flip.shift0",
        );
        assert_close(
            timestep_embedding(&times, 32, false, 1.0, &device),
            &fixture,
            "timestep_embedding.noflip.shift1",
        );
        let context: Tensor<3> = tensor(&fixture, "encoder_hidden_states");
        let temb: Tensor<2> = tensor(&fixture, "temb");
        let temb = burn::tensor::activation::silu(temb);
        let input3 = |name: &str| tensor::<3>(&fixture, &format!("{name}.input"));
        let input4 = |name: &str| tensor::<4>(&fixture, &format!("{name}.input"));

        let name = "down_blocks.0.resnets.0";
        let output = unet.down_blocks[0].resnets[0].forward(input4(name), Some(&temb));
        assert_close(output, &fixture, &format!("{name}.output"));

        let mut levels = unet.down_blocks.iter().enumerate();
        let (level, down) = levels
            .find(|(_, block)| block.attentions.is_some())
            .unwrap();
        let transformer = &down.attentions.as_ref().unwrap()[0];
        let name = format!("down_blocks.{level}.attentions.0");
        let output = transformer.forward(input4(&name), &context);
        assert_close(output, &fixture, &format!("{name}.output"));

        let block = &transformer.transformer_blocks[0];
        let name = format!("{name}.transformer_blocks.0");
        assert_close(
            block.forward(input3(&name), &context),
            &fixture,
            &format!("{name}.output"),
        );
        let attn1 = block.attn1.forward(input3(&format!("{name}.attn1")), None);
        assert_close(attn1, &fixture, &format!("{name}.attn1.output"));
        let attn2 = block
            .attn2
            .forward(input3(&format!("{name}.attn2")), Some(&context));
        assert_close(attn2, &fixture, &format!("{name}.attn2.output"));
        let ff = block.ff.forward(input3(&format!("{name}.ff")));
        assert_close(ff, &fixture, &format!("{name}.ff.output"));

        let name = format!("down_blocks.{level}.downsamplers.0");
        let output = down.downsamplers.as_ref().unwrap()[0].forward(input4(&name));
        assert_close(output, &fixture, &format!("{name}.output"));
        let name = "up_blocks.0.upsamplers.0";
        let output = unet.up_blocks[0].upsamplers.as_ref().unwrap()[0].forward(input4(name), None);
        assert_close(output, &fixture, &format!("{name}.output"));
    }
}

#[test]
fn the_blocks_of_the_unet_give_what_diffusers_gives() {
    for folder in folders() {
        let fixture = parity(&folder, "unet.safetensors");
        let unet = unet(&folder);
        let context: Tensor<3> = tensor(&fixture, "encoder_hidden_states");
        let mut temb = tensor::<2>(&fixture, "time_embedding.output");
        if let Some(embedding) = &unet.add_embedding {
            let added = embedding.forward(tensor(&fixture, "add_embedding.input"));
            assert_close(added.clone(), &fixture, "add_embedding.output");
            temb = temb + added;
        }
        let temb = burn::tensor::activation::silu(temb);
        let embedded = unet
            .time_embedding
            .forward(tensor(&fixture, "time_embedding.input"));
        assert_close(embedded, &fixture, "time_embedding.output");
        let mut skips = Vec::new();
        for (index, block) in unet.down_blocks.iter().enumerate() {
            let name = format!("down_blocks.{index}");
            let before = skips.len();
            let input = tensor(&fixture, &format!("{name}.input"));
            let output = block.forward(input, &temb, &context, &mut skips);
            assert_close(output, &fixture, &format!("{name}.output.0"));
            for (index, skip) in skips[before..].iter().enumerate() {
                assert_close(skip.clone(), &fixture, &format!("{name}.output.1.{index}"));
            }
        }
        let mid_block = unet.mid_block.as_ref().unwrap();
        let mid = mid_block.forward(tensor(&fixture, "mid_block.input"), &temb, &context);
        assert_close(mid, &fixture, "mid_block.output");
        let mut skips = vec![unet.conv_in.forward(tensor(&fixture, "conv_in.input"))];
        assert_close(skips[0].clone(), &fixture, "conv_in.output");
        for (index, block) in unet.down_blocks.iter().enumerate() {
            let input = tensor(&fixture, &format!("down_blocks.{index}.input"));
            let _ = block.forward(input, &temb, &context, &mut skips);
        }
        for (index, block) in unet.up_blocks.iter().enumerate() {
            let name = format!("up_blocks.{index}");
            let input = tensor(&fixture, &format!("{name}.input"));
            let output = block.forward(input, &temb, &context, &mut skips);
            assert_close(output, &fixture, &format!("{name}.output"));
        }
    }
}

#[test]
fn the_unet_gives_what_diffusers_gives_also_on_odd_sizes() {
    for folder in folders() {
        let fixture = parity(&folder, "unet.safetensors");
        let unet = unet(&folder);
        let conditions = conditioning(&fixture);
        let times = numbers(&fixture, "timestep");
        let output = unet.forward(tensor(&fixture, "sample"), &times, &conditions);
        assert_close(output.unwrap(), &fixture, "output");
        let times = numbers(&fixture, "odd.timestep");
        let conditions = conditions.slice(0..1);
        let output = unet.forward(tensor(&fixture, "odd.sample"), &times, &conditions);
        assert_close(output.unwrap(), &fixture, "odd.output");
    }
}

#[test]
fn the_unet_without_its_middle_gives_what_diffusers_gives() {
    for folder in folders() {
        let fixture = parity(&folder, "unet.safetensors");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let Component { mut config, model } = checkpoint.unet(&device()).unwrap();
        config.mid_block_type = None;
        // What a file that says so is read into has no middle either.
        let smaller = config.init(&device()).unwrap();
        assert!(smaller.num_params() < model.num_params());
        let smaller = UNet2DConditionModel {
            mid_block: None,
            ..model
        };
        let times = numbers(&fixture, "timestep");
        let output = smaller.forward(tensor(&fixture, "sample"), &times, &conditioning(&fixture));
        let expected = parity(&folder, "unet_without_middle.safetensors");
        assert_close(output.unwrap(), &expected, "output");
    }
}

#[test]
fn added_conditions_that_do_not_fit_the_unet_are_refused() {
    let forward = |folder: &Path, conditions: &Conditioning| {
        let fixture = parity(folder, "unet.safetensors");
        let times = numbers(&fixture, "timestep");
        let result = unet(folder).forward(tensor(&fixture, "sample"), &times, conditions);
        result.unwrap_err().to_string()
    };
    let (sd, xl) = (fixture("tiny-sd"), fixture("tiny-sdxl"));
    let right = conditioning(&parity(&xl, "unet.safetensors"));
    let error = forward(&xl, &Conditioning::from(right.context.clone()));
    assert!(error.contains("found none"), "{error}");
    let error = forward(&sd, &right);
    assert!(error.contains("expected none"), "{error}");
    let mut few = right.clone();
    few.added.as_mut().unwrap().time_ids.pop();
    let error = forward(&xl, &few);
    assert!(
        error.contains("2 time ids") && error.contains("1 time ids"),
        "{error}"
    );
    let mut narrow = right;
    let added = narrow.added.as_mut().unwrap();
    added.text_embeds = added.text_embeds.clone().narrow(1, 0, 9);
    let error = forward(&xl, &narrow);
    assert!(
        error.contains("[2, 10]") && error.contains("[2, 9]"),
        "{error}"
    );
}

#[test]
fn the_vae_gives_what_diffusers_gives() {
    for folder in folders() {
        let fixture = parity(&folder, "vae.safetensors");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let vae = checkpoint.vae(&device()).unwrap().model;
        let moments = vae.encode(tensor(&fixture, "image"));
        assert_close(moments.mean, &fixture, "mean");
        assert_close(moments.logvar, &fixture, "logvar");
        assert_close(vae.decode(tensor(&fixture, "latent")), &fixture, "decoded");
    }
}

#[test]
fn each_block_of_the_vae_gives_what_diffusers_gives() {
    for folder in folders() {
        let fixture = parity(&folder, "vae.safetensors");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let vae = checkpoint.vae(&device()).unwrap().model;
        let check = |name: &str, forward: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let output = forward(tensor(&fixture, &format!("{name}.input")));
            assert_close(output, &fixture, &format!("{name}.output"));
        };
        let (encoder, decoder) = (&vae.encoder, &vae.decoder);
        check("encoder.down_blocks.0", &|input| {
            encoder.down_blocks[0].forward(input)
        });
        check("encoder.mid_block", &|input| {
            encoder.mid_block.forward(input)
        });
        check("decoder.mid_block", &|input| {
            decoder.mid_block.forward(input)
        });
        check("decoder.up_blocks.0", &|input| {
            decoder.up_blocks[0].forward(input)
        });
    }
}
