//! What is in a model folder.

use std::path::{Path, PathBuf};

use indicatif::{HumanBytes, HumanCount};
use selma_diffusion::config::read_json;
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::schedulers::PredictionType;
use selma_diffusion::weights::{Dtype, Weights};
use selma_diffusion::{Checkpoint, DiffusionError};
use serde::Serialize;

use super::Description;
use crate::table::{columns, pairs};

/// A folder in the layout of diffusers.
#[derive(Debug, Serialize)]
pub struct Model {
    path: PathBuf,
    /// SHA-256 over the weight files.
    sha256: String,
    /// Width and height of the pictures it was made for, in pixels.
    native_size: Option<usize>,
    /// Pixels a latent, along a side.
    vae_factor: usize,
    scaling_factor: f64,
    prediction_type: PredictionType,
    scheduler: &'static str,
    train_timesteps: usize,
    vocabulary: usize,
    text_length: usize,
    parameters: u64,
    components: Vec<Component>,
}

/// A network with its weights.
#[derive(Debug, Serialize)]
struct Component {
    name: &'static str,
    class: &'static str,
    file: PathBuf,
    parameters: u64,
    bytes: u64,
    dtypes: Vec<String>,
    /// The configuration's most telling fields.
    config: String,
}

pub fn describe(path: &Path) -> anyhow::Result<Model> {
    let checkpoint = Checkpoint::open(path)?;
    let (kind, scheduler) = checkpoint.scheduler()?;
    let tokenizer = checkpoint.tokenizer()?;
    let text: ClipTextConfig = read_json(&path.join("text_encoder/config.json"))?;
    let unet: UNet2DConditionModelConfig = read_json(&path.join("unet/config.json"))?;
    let vae: AutoencoderKLConfig = read_json(&path.join("vae/config.json"))?;
    let text_line = |text: &ClipTextConfig| {
        format!(
            "width {}, {} layers, {} heads",
            text.hidden_size, text.num_hidden_layers, text.num_attention_heads
        )
    };
    let unet_line = format!(
        "channels {:?}, {} layers a block, context {}",
        unet.block_out_channels, unet.layers_per_block, unet.cross_attention_dim
    );
    let vae_line = format!(
        "channels {:?}, {} latent channels",
        vae.block_out_channels, vae.latent_channels
    );
    let text_class = |text: &ClipTextConfig| match text.has_projection() {
        true => "CLIPTextModelWithProjection",
        false => "CLIPTextModel",
    };
    let text_encoder = |name, text: &ClipTextConfig| {
        component(path, name, "model", text_class(text), text_line(text))
    };
    let mut components = vec![text_encoder("text_encoder", &text)?];
    if checkpoint.is_xl() {
        let second: ClipTextConfig = read_json(&path.join("text_encoder_2/config.json"))?;
        components.push(text_encoder("text_encoder_2", &second)?);
    }
    components.extend([
        component(
            path,
            "unet",
            "diffusion_pytorch_model",
            "UNet2DConditionModel",
            unet_line,
        )?,
        component(
            path,
            "vae",
            "diffusion_pytorch_model",
            "AutoencoderKL",
            vae_line,
        )?,
    ]);
    Ok(Model {
        path: path.to_owned(),
        sha256: checkpoint.sha256()?,
        native_size: unet.sample_size.map(|size| size * vae.factor()),
        vae_factor: vae.factor(),
        scaling_factor: vae.scaling_factor,
        prediction_type: scheduler.prediction_type(),
        scheduler: kind.class_name(),
        train_timesteps: scheduler.num_train_timesteps(),
        vocabulary: tokenizer.vocab_size(),
        text_length: tokenizer.max_length(),
        parameters: components
            .iter()
            .map(|component| component.parameters)
            .sum(),
        components,
    })
}

fn component(
    path: &Path,
    name: &'static str,
    stem: &str,
    class: &'static str,
    config: String,
) -> Result<Component, DiffusionError> {
    let plain = path.join(name).join(format!("{stem}.safetensors"));
    let half = path.join(name).join(format!("{stem}.fp16.safetensors"));
    let file = if plain.exists() || !half.exists() {
        plain
    } else {
        half
    };
    let weights = Weights::open(&file)?;
    // Some files also hold a constant buffer of integers, which is no parameter.
    let parameters = weights
        .names()
        .filter(|name| {
            matches!(
                weights.dtype(name),
                Some(Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
            )
        })
        .filter_map(|name| weights.shape(name))
        .map(|shape| shape.iter().product::<usize>() as u64)
        .sum();
    let mut dtypes: Vec<String> = weights
        .names()
        .filter_map(|name| weights.dtype(name))
        .map(|dtype| format!("{dtype:?}").to_lowercase())
        .collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    let bytes = std::fs::metadata(&file).map_or(0, |found| found.len());
    Ok(Component {
        name,
        class,
        file,
        parameters,
        bytes,
        dtypes,
        config,
    })
}

impl Description for Model {
    fn text(&self) -> String {
        let prediction = match self.prediction_type {
            PredictionType::Epsilon => "epsilon (the noise)",
            PredictionType::VPrediction => "v_prediction (the velocity)",
            PredictionType::Sample => "sample (the clean picture)",
        };
        let size = self.native_size.map_or("not given".to_owned(), |size| {
            format!("{size}x{size} pixels")
        });
        let pairs = pairs(&[
            ("model", self.path.display().to_string()),
            ("sha256", self.sha256.clone()),
            ("pictures", size),
            (
                "latents",
                format!(
                    "{} pixels each, scaled by {}",
                    self.vae_factor, self.scaling_factor
                ),
            ),
            ("predicts", prediction.to_owned()),
            (
                "scheduler",
                format!(
                    "{}, {} training timesteps",
                    self.scheduler, self.train_timesteps
                ),
            ),
            (
                "tokenizer",
                format!(
                    "{} tokens, texts of {}",
                    HumanCount(self.vocabulary as u64),
                    self.text_length
                ),
            ),
            ("parameters", HumanCount(self.parameters).to_string()),
        ]);
        let rows: Vec<[String; 5]> = self
            .components
            .iter()
            .map(|component| {
                [
                    component.name.to_owned(),
                    HumanCount(component.parameters).to_string(),
                    HumanBytes(component.bytes).to_string(),
                    component.dtypes.join(" "),
                    component.config.clone(),
                ]
            })
            .collect();
        let table = columns(
            ["component", "parameters", "size", "type", "configuration"],
            &rows,
        );
        format!("{pairs}\n\n{table}")
    }
}
