//! `selma inspect`.

mod adapter;
mod dataset;
mod model;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use selma_dataset::{JOURNAL_FILE, METADATA_FILE};
use serde::Serialize;

use crate::models;
use crate::terminal::print;

/// Show what is in an adapter, a model folder or a dataset.
///
/// A file is read as a LoRA adapter: its format, layers, ranks, alphas and the size of its updates. A folder with
/// model_index.json is a model in the layout of diffusers, one with metadata.jsonl a dataset of pictures with texts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma inspect merged.safetensors
  selma inspect models/mini --json
  selma inspect stable-diffusion-v1-5/stable-diffusion-v1-5")]
pub struct Args {
    /// An adapter file, a model folder, a dataset folder, or the id of a model on the Hugging Face Hub, which is downloaded.
    #[arg(value_name = "FILE|DIR|ID")]
    path: PathBuf,
    /// Which weights of the model to look at, such as fp16, where a model on the Hub has several.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Print JSON for programs instead of text for people.
    #[arg(long)]
    json: bool,
}

/// A description that is printed in either form.
trait Description: Serialize {
    fn text(&self) -> String;
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let path = &models::locate(&args.path, args.variant.as_deref())?;
    let found = path
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
    if !found.is_dir() {
        return show(&adapter::describe(path)?, args.json);
    }
    let has = |name: &str| path.join(name).exists();
    if has("model_index.json") {
        show(&model::describe(path)?, args.json)
    } else if has(METADATA_FILE) || has(JOURNAL_FILE) {
        show(&dataset::describe(path)?, args.json)
    } else {
        unknown(path)
    }
}

fn unknown(path: &Path) -> anyhow::Result<()> {
    bail!(
        "{} is neither a model (no model_index.json) nor a dataset (no {METADATA_FILE})",
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
