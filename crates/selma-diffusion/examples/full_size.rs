//! Loads one network of a model, runs it on stored inputs, and says what that took.
//!
//! ```sh
//! cargo run --release --example full_size -- FOLDER PART INPUTS.safetensors OUTPUTS.safetensors [REPEATS]
//! ```
//!
//! `tools/full_size.py` makes models of the published sizes with random weights, runs this program and diffusers on them, and compares. One line of
//! JSON is printed: seconds of the loading and of every run, and the most memory (in bytes, the mapped file included) that was held at the end of the loading and in all.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

#[path = "common/memory.rs"]
mod memory;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use memory::peak_bytes;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use selma_diffusion::models::{
    AddedConditioning, AutoencoderKL, ClipTextModel, Conditioning, TimeIds, UNet2DConditionModel,
};
use selma_diffusion::weights::Weights;
use selma_diffusion::{Checkpoint, DiffusionError};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names, shapes and values.
type Outputs = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

enum Network {
    TextEncoder(Box<ClipTextModel>),
    UNet(Box<UNet2DConditionModel>),
    Vae(Box<AutoencoderKL>),
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, part, inputs, outputs, repeats @ ..] = arguments.as_slice() else {
        return Err("usage: full_size FOLDER PART INPUTS OUTPUTS [REPEATS]".into());
    };
    let repeats = repeats.first().map_or(Ok(1), |count| count.parse())?;
    let device = Device::flex();

    let start = Instant::now();
    let network = load(folder, part, &device)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let loaded_bytes = peak_bytes()?;

    let inputs = Inputs {
        file: Weights::open(inputs)?,
        device,
    };
    let mut seconds = Vec::new();
    let mut results = Outputs::new();
    for _ in 0..repeats {
        let start = Instant::now();
        results = network.run(&inputs)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    write(&results, Path::new(outputs))?;
    let report = json!({
        "load_seconds": load_seconds,
        "loaded_bytes": loaded_bytes,
        "run_seconds": seconds,
        "peak_bytes": peak_bytes()?,
    });
    println!("{report}");
    Ok(())
}

fn load(folder: &str, part: &str, device: &Device) -> Result<Network, Box<dyn Error>> {
    let checkpoint = Checkpoint::open(folder)?;
    Ok(match part {
        "text_encoder" => Network::TextEncoder(Box::new(checkpoint.text_encoder(device)?.model)),
        "text_encoder_2" => {
            Network::TextEncoder(Box::new(checkpoint.text_encoder_2(device)?.model))
        }
        "unet" => Network::UNet(Box::new(checkpoint.unet(device)?.model)),
        "vae" => Network::Vae(Box::new(checkpoint.vae(device)?.model)),
        other => return Err(format!("no part is called {other}").into()),
    })
}

struct Inputs {
    file: Weights,
    device: Device,
}

impl Inputs {
    fn floats<const D: usize>(&self, name: &str) -> Result<Tensor<D>, DiffusionError> {
        let (values, shape) = self.file.require(name)?;
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            &self.device,
        ))
    }

    fn integers(&self, name: &str) -> Result<Tensor<2, Int>, Box<dyn Error>> {
        let missing = || format!("the inputs have no whole numbers called {name}");
        let values = self.file.integers(name).ok_or_else(missing)?;
        let shape = self.file.shape(name).ok_or_else(missing)?;
        Ok(Tensor::from_data(
            TensorData::new(values, shape.to_vec()),
            &self.device,
        ))
    }
}

impl Network {
    fn run(&self, inputs: &Inputs) -> Result<Outputs, Box<dyn Error>> {
        let mut outputs = Outputs::new();
        match self {
            Self::TextEncoder(model) => {
                let mut output = model.forward(inputs.integers("input_ids")?);
                push(&mut outputs, "last_hidden_state", output.last_hidden_state)?;
                push(&mut outputs, "pooled", output.pooled)?;
                output.hidden_states.pop();
                if let Some(penultimate) = output.hidden_states.pop() {
                    push(&mut outputs, "penultimate", penultimate)?;
                }
            }
            Self::UNet(model) => {
                let sample: Tensor<4> = inputs.floats("sample")?;
                let [batch, _, height, width] = sample.dims();
                let (timesteps, _) = inputs.file.require("timesteps")?;
                let timesteps: Vec<f64> = timesteps.into_iter().map(f64::from).collect();
                let added = match inputs.file.shape("text_embeds") {
                    Some(_) => Some(AddedConditioning {
                        text_embeds: inputs.floats("text_embeds")?,
                        time_ids: vec![TimeIds::of_size(8 * height, 8 * width); batch],
                    }),
                    None => None,
                };
                let conditioning = Conditioning {
                    context: inputs.floats("context")?,
                    added,
                };
                let predicted = model.forward(sample, &timesteps, &conditioning)?;
                push(&mut outputs, "sample", predicted)?;
            }
            Self::Vae(model) => {
                push(
                    &mut outputs,
                    "decoded",
                    model.decode(inputs.floats("latents")?),
                )?;
            }
        }
        Ok(outputs)
    }
}

fn push<const D: usize>(
    outputs: &mut Outputs,
    name: &'static str,
    tensor: Tensor<D>,
) -> Result<(), Box<dyn Error>> {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().try_to_vec::<f32>();
    let values = values.map_err(|error| format!("{name}: {error:?}"))?;
    outputs.push((name, shape, values));
    Ok(())
}

fn write(outputs: &Outputs, path: &Path) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<Vec<u8>> = outputs
        .iter()
        .map(|(.., values)| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = outputs
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(serialize_to_file(views, None, path)?)
}
