//! `selma extract`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use indicatif::HumanCount;
use selma_durable::to_json;
use selma_lora::{Dtype, Format, RankRule};

use super::adapter_out::{AdapterOutput, DTYPES, FORMATS};
use super::model::FileOptions;
use super::values::{named, rank_rule};
use crate::output::{Output, spare};
use crate::terminal::say;

/// Make a LoRA adapter of what tells a model apart from the one it was trained from.
///
/// For every linear layer and convolution of the UNet and the text encoders that differs, the best approximation of the difference of the rank that
/// you choose. Models may be folders in the layout of diffusers or single files in the original layout, also one of each.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma extract --base sd15 --tuned my-model.safetensors --rank 32 --dtype f16 --out lora.safetensors
  selma extract --base models/mini --tuned further --rank energy:0.95 --out lora.safetensors")]
pub struct Args {
    /// The model from which the other was trained: a folder, a file, or an id on the Hugging Face Hub.
    #[arg(long, value_name = "DIR|FILE|ID")]
    base: PathBuf,
    /// The trained model.
    #[arg(long, value_name = "DIR|FILE|ID")]
    tuned: PathBuf,
    /// These hold for both models.
    #[command(flatten)]
    options: FileOptions,
    /// The rank: a number, or energy:SHARE (as few as hold this share of the squared norm), threshold:SIZE (singular values of at least this
    /// size) or ratio:SHARE (of at least this share of the largest).
    #[arg(long, value_name = "RULE", value_parser = rank_rule)]
    rank: RankRule,
    /// Form of the adapter.
    #[arg(long, value_name = "FORMAT", default_value = "kohya", value_parser = named::<Format>(FORMATS))]
    format: Format,
    /// Number type of the adapter.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = named::<Dtype>(DTYPES))]
    dtype: Dtype,
    /// The file, or with peft the folder, to write.
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Also write the rank of every layer and what it cost, as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    spare(
        [args.base.as_path(), args.tuned.as_path()],
        std::iter::once(args.out.as_path()).chain(args.report.as_deref()),
    )?;
    let output = AdapterOutput::create(&args.out, args.format, args.dtype)?;
    let report_out = args.report.as_deref().map(Output::create).transpose()?;
    let base = args.options.open(&args.base)?;
    let tuned = args.options.open(&args.tuned)?;
    let found = base.difference(&tuned, args.rank).with_context(|| {
        format!(
            "cannot compare {} with {}",
            args.tuned.display(),
            args.base.display()
        )
    })?;
    let layers = found.report.modules.len();
    ensure!(
        layers > 0,
        "{} and {} do not differ in any layer that can have a LoRA",
        args.base.display(),
        args.tuned.display()
    );
    let written = output.finish(&found.adapter)?;
    if let (Some(output), Some(path)) = (report_out, &args.report) {
        output.finish_with(&to_json(path, &found.report)?)?;
    }
    say(format_args!("wrote {written}"));
    let ranks = || found.report.modules.iter().map(|module| module.cut.rank);
    say(format_args!(
        "{} layers differ, {} do not; ranks {} to {}; norm {:.4}, of which {:.3} % was cut off",
        HumanCount(layers as u64),
        HumanCount(found.report.unchanged.len() as u64),
        ranks().min().unwrap_or(0),
        ranks().max().unwrap_or(0),
        found.report.norm,
        found.report.error * 100.0
    ));
    if let Some(first) = found.others.first() {
        say(format_args!(
            "warning: {} more tensors differ that can have no LoRA, such as {first}",
            HumanCount(found.others.len() as u64)
        ));
    }
    Ok(())
}
