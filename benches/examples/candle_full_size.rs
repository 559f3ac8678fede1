//! What `full_size` of selma-diffusion does, by candle: loads a network of Stable Diffusion 1.5, runs it on stored inputs, and says what that took.
//!
//! ```sh
//! cargo run --release --package selma-benches --features candle --example candle_full_size -- FOLDER PART INPUTS.safetensors OUTPUTS.safetensors [REPEATS]
//! ```
//!
//! `tools/full_size.py` runs it. The line of JSON that is printed has the same fields.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

#[path = "../../crates/selma-diffusion/examples/common/memory.rs"]
mod memory;

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, IndexOp, Module, Tensor, safetensors};
use candle_transformers::models::stable_diffusion::clip::ClipTextTransformer;
use candle_transformers::models::stable_diffusion::unet_2d::UNet2DConditionModel;
use candle_transformers::models::stable_diffusion::vae::AutoEncoderKL;
use candle_transformers::models::stable_diffusion::{
    StableDiffusionConfig, build_clip_transformer,
};
use memory::peak_bytes;

enum Network {
    TextEncoder(Box<ClipTextTransformer>),
    UNet(Box<UNet2DConditionModel>),
    Vae(Box<AutoEncoderKL>),
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, part, inputs, outputs, repeats @ ..] = arguments.as_slice() else {
        return Err("usage: candle_full_size FOLDER PART INPUTS OUTPUTS [REPEATS]".into());
    };
    let repeats = repeats.first().map_or(Ok(1), |count| count.parse())?;

    let start = Instant::now();
    let network = load(&Path::new(folder).join(part), part)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let loaded_bytes = peak_bytes()?;

    let inputs = safetensors::load(inputs, &Device::Cpu)?;
    let mut seconds = Vec::new();
    let mut results = HashMap::new();
    for _ in 0..repeats {
        let start = Instant::now();
        results = network.run(&inputs)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    safetensors::save(&results, outputs)?;
    println!(
        r#"{{"load_seconds": {load_seconds}, "loaded_bytes": {loaded_bytes}, "run_seconds": {seconds:?}, "peak_bytes": {}}}"#,
        peak_bytes()?
    );
    Ok(())
}

fn load(folder: &Path, part: &str) -> Result<Network, Box<dyn Error>> {
    let config = StableDiffusionConfig::v1_5(None, None, None);
    let weights = folder.join("diffusion_pytorch_model.safetensors");
    let (device, dtype) = (Device::Cpu, DType::F32);
    Ok(match part {
        "text_encoder" => {
            // With the names that transformers wrote before version 5.
            let weights = folder.join("old_names.safetensors");
            let model = build_clip_transformer(&config.clip, weights, &device, dtype)?;
            Network::TextEncoder(Box::new(model))
        }
        "unet" => {
            let unet = config.build_unet(weights, &device, 4, false, dtype)?;
            Network::UNet(Box::new(unet))
        }
        "vae" => Network::Vae(Box::new(config.build_vae(weights, &device, dtype)?)),
        other => return Err(format!("no part is called {other}").into()),
    })
}

impl Network {
    fn run(
        &self,
        inputs: &HashMap<String, Tensor>,
    ) -> Result<HashMap<String, Tensor>, Box<dyn Error>> {
        let input = |name: &str| inputs.get(name).ok_or(format!("the inputs have no {name}"));
        let (name, output) = match self {
            Self::TextEncoder(model) => {
                let ids = input("input_ids")?.to_dtype(DType::U32)?;
                // candle's mask is for one text.
                let texts = (0..ids.dim(0)?).map(|text| model.forward(&ids.narrow(0, text, 1)?));
                let texts = texts.collect::<Result<Vec<_>, _>>()?;
                ("last_hidden_state", Tensor::cat(&texts, 0)?)
            }
            Self::UNet(model) => {
                // candle takes one timestep for all samples.
                let timestep = f64::from(input("timesteps")?.i(0)?.to_scalar::<f32>()?);
                let predicted = model.forward(input("sample")?, timestep, input("context")?)?;
                ("sample", predicted)
            }
            Self::Vae(model) => ("decoded", model.decode(input("latents")?)?),
        };
        Ok(HashMap::from([(name.to_owned(), output.contiguous()?)]))
    }
}
