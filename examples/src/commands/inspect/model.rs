//! What is in a model folder.

use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use indicatif::{HumanBytes, HumanCount};
use selma_diffusion::models::ClipTextConfig;
use selma_diffusion::presets::Family;
use selma_diffusion::schedulers::PredictionType;
use selma_diffusion::weights::{Dtype, Weights};
use selma_diffusion::{Stored, device};
use serde::Serialize;

use super::Description;
use crate::commands::model::ModelOptions;
use crate::table::{columns, pairs};

/// A model in the layout of diffusers, or in a single file.
#[derive(Debug, Serialize)]
pub struct Model {
    path: PathBuf,
    /// What a single file was recognised as, or a folder's UNet has the sizes of.
    family: Option<String>,
    /// SHA-256 over the weight files.
    sha256: String,
    /// Width and height of the pictures it was made for, in pixels.
    native_size: Option<usize>,
    /// Pixels a latent, along a side.
    vae_factor: usize,
    scaling_factor: f64,
    prediction_type: PredictionType,
    /// Class of the scheduler that the model names; drawing needs another where this one is not implemented.
    scheduler: String,
    scheduler_implemented: bool,
    /// Whether a single file's family says the prediction type and the scheduler, and not the file.
    assumed: bool,
    train_timesteps: usize,
    vocabulary: usize,
    text_length: usize,
    parameters: u64,
    components: Vec<Component>,
    /// Tensors of a single file that are no part of the model.
    ignored: Vec<String>,
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
    /// Parameters without a tensor, tensors without a parameter, and tensors of another shape or type.
    missing: Vec<String>,
    unused: Vec<String>,
    misfit: Vec<String>,
}

pub fn describe(path: &Path, options: &ModelOptions) -> anyhow::Result<Model> {
    let checkpoint = options.open(path, FloatDType::F32)?;
    let scheduler = checkpoint.scheduler_config()?;
    let tokenizer = checkpoint.tokenizer()?;
    let text = checkpoint.stored_text_encoder()?;
    let unet = checkpoint.stored_unet()?;
    let vae = checkpoint.stored_vae()?;
    let unet_line = format!(
        "channels {:?}, {} layers a block, context {}",
        unet.config.block_out_channels,
        unet.config.layers_per_block,
        unet.config.cross_attention_dim
    );
    let vae_line = format!(
        "channels {:?}, {} latent channels",
        vae.config.block_out_channels, vae.config.latent_channels
    );
    let mut components = vec![text_encoder("text_encoder", &text)];
    if checkpoint.is_xl() {
        let second = checkpoint.stored_text_encoder_2()?;
        components.push(text_encoder("text_encoder_2", &second));
    }
    components.extend([
        component("unet", "UNet2DConditionModel", &unet.weights, unet_line),
        component("vae", "AutoencoderKL", &vae.weights, vae_line),
    ]);
    for (name, fit) in checkpoint.fits(&device("flex")?)? {
        let named = components
            .iter_mut()
            .find(|component| component.name == name);
        if let Some(component) = named {
            component.missing = fit.missing;
            component.unused = fit.unused;
            component.misfit = fit.misfit;
        }
    }
    let single = checkpoint.single_file();
    let family = single.map_or_else(
        || Family::of_unet(&unet.config),
        |single| Some(single.family()),
    );
    Ok(Model {
        path: path.to_owned(),
        family: family.map(|family| family.to_string()),
        sha256: checkpoint.sha256()?,
        native_size: unet
            .config
            .sample_size
            .map(|size| size * vae.config.factor()),
        vae_factor: vae.config.factor(),
        scaling_factor: vae.config.scaling_factor,
        prediction_type: scheduler.prediction_type(),
        scheduler_implemented: scheduler.kind().is_ok(),
        assumed: single.is_some_and(|single| *single.scheduler() == scheduler),
        train_timesteps: scheduler.num_train_timesteps(),
        scheduler: scheduler.class_name.unwrap_or_else(|| "none".to_owned()),
        vocabulary: tokenizer.vocab_size(),
        text_length: tokenizer.max_length(),
        parameters: components
            .iter()
            .map(|component| component.parameters)
            .sum(),
        components,
        ignored: single.map_or_else(Vec::new, |single| {
            [single.unused(), single.strays()].concat()
        }),
    })
}

fn text_encoder(name: &'static str, stored: &Stored<ClipTextConfig>) -> Component {
    let config = &stored.config;
    let class = if config.has_projection() {
        "CLIPTextModelWithProjection"
    } else {
        "CLIPTextModel"
    };
    let line = format!(
        "width {}, {} layers, {} heads",
        config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    );
    component(name, class, &stored.weights, line)
}

fn component(
    name: &'static str,
    class: &'static str,
    weights: &Weights,
    config: String,
) -> Component {
    // Some files also hold a constant buffer of integers, which is no parameter.
    let floats = weights.names().filter(|name| {
        matches!(
            weights.dtype(name),
            Some(Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
        )
    });
    let count = |name: &str| {
        let shape = weights.shape(name).unwrap_or_default();
        shape.iter().product::<usize>() as u64
    };
    let bits = |name: &str| {
        weights
            .dtype(name)
            .map_or(0, |dtype| dtype.bitsize() as u64)
    };
    let mut dtypes: Vec<String> = weights
        .names()
        .filter_map(|name| weights.dtype(name))
        .map(|dtype| format!("{dtype:?}").to_lowercase())
        .collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    Component {
        name,
        class,
        file: weights.path().to_owned(),
        parameters: floats.map(count).sum(),
        bytes: weights
            .names()
            .map(|name| count(name) * bits(name) / 8)
            .sum(),
        dtypes,
        config,
        missing: Vec::new(),
        unused: Vec::new(),
        misfit: Vec::new(),
    }
}

/// What does not fit, a line each.
fn unfit(component: &Component) -> Vec<String> {
    let line = |what: &str, keys: &[String]| {
        let shown: Vec<&str> = keys.iter().take(8).map(String::as_str).collect();
        let more = if keys.len() > shown.len() { ", .." } else { "" };
        let (name, count) = (component.name, keys.len());
        (count > 0).then(|| format!("{name}: {count} {what}: {}{more}", shown.join(", ")))
    };
    [
        line("missing", &component.missing),
        line("unused", &component.unused),
        line("of another shape or type", &component.misfit),
    ]
    .into_iter()
    .flatten()
    .collect()
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
        let assumed = if self.assumed {
            " (of the family; the file does not say it)"
        } else {
            ""
        };
        let usable = match self.scheduler_implemented {
            true => "",
            false => " (not implemented here: --scheduler names another)",
        };
        let mut rows = vec![("model", self.path.display().to_string())];
        let family = self.family.as_deref();
        rows.extend([
            (
                "family",
                family.unwrap_or("none of the published sizes").to_owned(),
            ),
            ("sha256", self.sha256.clone()),
            ("pictures", size),
            (
                "latents",
                format!(
                    "{} pixels each, scaled by {}",
                    self.vae_factor, self.scaling_factor
                ),
            ),
            ("predicts", format!("{prediction}{assumed}")),
            (
                "scheduler",
                format!(
                    "{}{usable}, {} training timesteps",
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
        if !self.ignored.is_empty() {
            let count = HumanCount(self.ignored.len() as u64);
            rows.push((
                "ignored",
                format!("{count} tensors that are no part of the model"),
            ));
        }
        let pairs = pairs(&rows);
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
        let unfit: Vec<String> = self.components.iter().flat_map(unfit).collect();
        if unfit.is_empty() {
            format!("{pairs}\n\n{table}")
        } else {
            format!("{pairs}\n\n{table}\n\n{}", unfit.join("\n"))
        }
    }
}
