//! `selma inspect`.

mod adapter;
mod dataset;
mod mixture;
mod model;
mod picture;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use selma_dataset::{JOURNAL_FILE, METADATA_FILE};
use selma_diffusion::weights::Weights;
use serde::Serialize;

use super::model::ModelOptions;
use crate::terminal::print;

/// Show what is in a model, an adapter, a picture or a dataset.
///
/// A PNG file says how it was drawn, if its program wrote that. Any other file is a whole model in the original layout
/// (.safetensors or .ckpt, of which nothing is executed) or an adapter: of a LoRA format, layers, ranks, alphas and the size
/// of its updates, of a LoHa, a LoKr or a full difference format, layers and kinds. A folder with model_index.json is a model in the layout of diffusers, one with metadata.jsonl a dataset
/// of pictures with texts, one with adapter_config.json, or such folders for unet and text encoders, an adapter of PEFT.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma inspect merged.safetensors
  selma inspect v1-5-pruned-emaonly.safetensors
  selma inspect circles.png
  selma inspect models/mini --json
  selma inspect stable-diffusion-v1-5/stable-diffusion-v1-5")]
pub struct Args {
    /// A model's folder or file, an adapter or picture file, a dataset folder, or the id of a model on the Hugging Face Hub,
    /// which is downloaded.
    #[arg(value_name = "FILE|DIR|ID")]
    path: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Print JSON for programs instead of text for people.
    #[arg(long)]
    json: bool,
}

/// A description that is printed in either form.
trait Description: Serialize {
    fn text(&self) -> String;
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let path = &args.options.locate(&args.path)?;
    let found = path
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
    if !found.is_dir() {
        return if is_png(path) {
            show(&picture::describe(path)?, args.json)
        } else if is_model(path) {
            show(&model::describe(path, &args.options)?, args.json)
        } else {
            adapter::describe(path, args.json)
        };
    }
    let has = |name: &str| path.join(name).exists();
    if has("model_index.json") {
        show(&model::describe(path, &args.options)?, args.json)
    } else if has(METADATA_FILE) || has(JOURNAL_FILE) {
        show(&dataset::describe(path)?, args.json)
    } else if ["", "unet", "text_encoder", "text_encoder_2"]
        .iter()
        .any(|component| path.join(component).join("adapter_config.json").exists())
    {
        adapter::describe(path, args.json)
    } else {
        unknown(path)
    }
}

/// Whether a file begins as PNG files do, whatever its name.
fn is_png(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"\x89PNG\r\n\x1a\n"
}

/// Whether a file is to be read as a model: it has a UNet in the original layout, or is a checkpoint of PyTorch, which
/// no adapter is.
fn is_model(path: &Path) -> bool {
    match Weights::open(path) {
        Ok(weights) => weights
            .names()
            .any(|name| name.starts_with("model.diffusion_model.")),
        Err(_) => path
            .extension()
            .is_some_and(|ending| ending != "safetensors"),
    }
}

fn unknown(path: &Path) -> anyhow::Result<()> {
    bail!(
        "{} is neither a model (no model_index.json) nor a dataset (no {METADATA_FILE}) nor an adapter (no adapter_config.json)",
        path.display()
    )
}

fn show(description: &impl Description, json: bool) -> anyhow::Result<()> {
    if json {
        print(serde_json::to_string_pretty(description)?)
    } else {
        print(description.text())
    }
}
