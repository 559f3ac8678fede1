//! `selma fuse`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use indicatif::HumanCount;

use super::model::FileOptions;
use super::values::{WeightedFile, load_weighted, weighted, weighted_file};
use crate::output::{check_file, spare};
use crate::terminal::say;

/// Write a model with LoRA adapters in its weights.
///
/// The new model draws what the old one draws with the adapters, at no further cost, and needs no program that knows adapters. It has the layout of the
/// old one: a folder as diffusers has it (whole or sharded, all variants), or a single file in the original layout. Weights keep their number type;
/// whatever the adapters do not change is copied bit for bit. The model is read and written piece by piece, so that it need not fit the memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma fuse --model models/mini --out mini-fused coco.safetensors=0.5 whoops.safetensors=0.5
  selma fuse --model v1-5-pruned-emaonly.safetensors --out fused.safetensors lora.safetensors=0.8
  selma fuse --model stabilityai/stable-diffusion-xl-base-1.0 --variant fp16 --out sdxl-fused lora.safetensors")]
pub struct Args {
    /// The model: a folder in diffusers' layout, a .safetensors file with the whole model, or the id of one on the Hugging Face Hub.
    #[arg(long, value_name = "DIR|FILE|ID")]
    model: PathBuf,
    #[command(flatten)]
    options: FileOptions,
    /// The model to write: a new folder if the model is one, a file if it is a file.
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Adapters, in any format and of any ranks. A weight multiplies an adapter's update; it is 1 if none is given.
    #[arg(required = true, value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let adapters = args.adapters.iter().map(|file| file.path.as_path());
    spare(adapters.chain([args.model.as_path()]), [args.out.as_path()])?;
    let loaded = load_weighted(&args.adapters)?;
    let inputs = weighted(&loaded);
    let checkpoint = args.options.open(&args.model)?;
    if checkpoint.single_file().is_some() {
        ensure!(
            is_safetensors(checkpoint.path())?,
            "cannot fuse into {}: it is a file of PyTorch; convert it to safetensors first",
            args.model.display()
        );
        check_file(&args.out)?;
    }
    let report = checkpoint
        .fuse_to(&args.out, &inputs)
        .with_context(|| format!("cannot fuse into {}", args.model.display()))?;
    let tensors: usize = report.files.iter().map(|file| file.tensors).sum();
    say(format_args!(
        "wrote {}: {} modules of {} adapters in {} tensors of {} files",
        args.out.display(),
        HumanCount(report.modules as u64),
        inputs.len(),
        HumanCount(tensors as u64),
        report.files.len(),
    ));
    if report.zero.len() == report.modules {
        say("warning: nothing has changed, all updates are zero");
    }
    for path in &report.left_out {
        say(format_args!(
            "left out {}, which holds the weights of before",
            path.display()
        ));
    }
    Ok(())
}

/// Whether a file that can be read as a model begins as safetensors files do: eight bytes of length, then JSON.
fn is_safetensors(path: &Path) -> anyhow::Result<bool> {
    let mut start = [0; 9];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start.ends_with(b"{"))
}
