//! Batches and factors of the fixtures that `tools/make_diffusion_fixtures.py` makes with diffusers and PEFT.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{ArrayD, IxDyn};
use selma_diffusion::models::{AddedConditioning, Conditioning, TimeIds};
use selma_diffusion::weights::Weights;
use selma_lora::{Adapter, LoraModule};
use selma_train::{Batch, Objective, Trainer};

/// Losses, relative.
pub const LOSS_TOLERANCE: f32 = 1e-3;
/// Trained factors, relative to the largest entry of each. Adam divides by small roots, which amplifies rounding.
pub const FACTOR_TOLERANCE: f32 = 1e-2;

pub fn folders() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../selma-diffusion/tests/fixtures");
    let mut folders = ["tiny-sd", "tiny-sd-v", "tiny-sdxl"]
        .map(|name| fixtures.join(name))
        .to_vec();
    if let Ok(extra) = std::env::var("SELMA_PARITY_DIR") {
        folders.extend(extra.split(':').map(PathBuf::from));
    }
    folders
}

/// Slice `step` of a stack of tensors.
pub fn slice(weights: &Weights, name: &str, step: usize) -> (Vec<f32>, Vec<usize>) {
    let (values, shape) = weights.require(name).unwrap();
    let count: usize = shape[1..].iter().product();
    (
        values[step * count..(step + 1) * count].to_vec(),
        shape[1..].to_vec(),
    )
}

pub fn tensor<const D: usize>(weights: &Weights, name: &str, step: usize) -> Tensor<D> {
    let (values, shape) = slice(weights, name, step);
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

pub fn batch(weights: &Weights, step: usize) -> Batch {
    let times = match weights.integers("timesteps") {
        Some(times) => times,
        None => weights
            .floats("timesteps")
            .unwrap()
            .iter()
            .map(|&t| t as i32)
            .collect(),
    };
    let count = weights.shape("timesteps").unwrap()[1];
    Batch {
        latents: tensor(weights, "latents", step),
        noise: tensor(weights, "noise", step),
        input_noise: None,
        timesteps: times[step * count..(step + 1) * count]
            .iter()
            .map(|&t| t as usize)
            .collect(),
        conditioning: conditioning(weights, step),
    }
}

pub fn conditioning(weights: &Weights, step: usize) -> Conditioning {
    let added = weights.shape("text_embeds").map(|_| {
        let (ids, _) = slice(weights, "time_ids", step);
        let ids: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        AddedConditioning {
            text_embeds: tensor(weights, "text_embeds", step),
            time_ids: ids
                .chunks(TimeIds::COUNT)
                .map(|ids| TimeIds {
                    original_size: [ids[0], ids[1]],
                    crops_coords_top_left: [ids[2], ids[3]],
                    target_size: [ids[4], ids[5]],
                })
                .collect(),
        }
    });
    Conditioning {
        context: tensor(weights, "encoder_hidden_states", step),
        added,
    }
}

pub fn array(weights: &Weights, name: &str) -> ArrayD<f32> {
    let (values, shape) = weights.require(name).unwrap();
    ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap()
}

pub fn initial(weights: &Weights, outputs: &BTreeMap<String, usize>) -> Adapter {
    let names = weights
        .names()
        .filter_map(|name| name.strip_prefix("init.")?.strip_suffix(".lora_A.weight"));
    Adapter::new(names.map(|name| {
        let a = array(weights, &format!("init.{name}.lora_A.weight"));
        let rank = a.shape()[0];
        let b = ArrayD::zeros(IxDyn(&[outputs[name], rank]));
        (
            format!("unet.{name}"),
            LoraModule::new(a, b, rank as f64).unwrap(),
        )
    }))
}

pub fn outputs(weights: &Weights) -> BTreeMap<String, usize> {
    let names = weights.names().filter_map(|name| {
        let layer = name
            .strip_prefix("accum1.")?
            .strip_suffix(".lora_B.weight")?;
        Some((layer.to_owned(), weights.shape(name)?[0]))
    });
    names.collect()
}

/// The fixture may say at which rate it was made; the script's own is 3e-3.
pub fn learning_rate(fixture: &Weights) -> f64 {
    fixture
        .floats("learning_rate")
        .map_or(3e-3, |values| f64::from(values[0]))
}

/// Compares trained factors with those of a fixture, relative to the largest entry of each.
pub fn assert_factors(trainer: &mut Trainer<impl Objective>, fixture: &Weights, case: &str) {
    for (name, module) in &trainer.adapter().unwrap().modules {
        let layer = name.strip_prefix("unet.").unwrap();
        for (letter, factor) in [("A", &module.a), ("B", &module.b)] {
            let key = format!("{case}.{layer}.lora_{letter}.weight");
            let expected = array(fixture, &key);
            let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
            let error = (factor - &expected)
                .iter()
                .fold(0f32, |max, x| max.max(x.abs()));
            assert!(
                error <= FACTOR_TOLERANCE * scale,
                "{key}: {error} at scale {scale}"
            );
        }
    }
}
