//! `selma resize`.

use std::path::PathBuf;

use indicatif::HumanCount;
use selma_durable::to_json;
use selma_lora::{Dtype, Format, RankRule, ResizeReport};

use super::adapter_out::{AdapterOutput, DTYPES, FORMATS, widest};
use super::values::{load_lora, named, rank_rule};
use crate::output::{Output, spare};
use crate::terminal::say;

/// Give a LoRA adapter smaller ranks.
///
/// Every layer's update becomes its best approximation of a smaller rank, by truncated singular value decomposition. With a number all layers get
/// the same rank; with the other rules each gets what it needs. A layer whose rank is small enough already stays as it is, to the bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma resize lora.safetensors --rank 16 --out small.safetensors
  selma resize lora.safetensors --rank energy:0.98 --dtype f16 --out small.safetensors
  selma resize lora.safetensors --rank ratio:0.05 --report resize.json --out small.safetensors")]
pub struct Args {
    /// An adapter file, or a folder of PEFT.
    #[arg(value_name = "FILE|DIR")]
    adapter: PathBuf,
    /// The rank: a number, or energy:SHARE (as few as hold this share of the squared norm), threshold:SIZE (singular values of at least this
    /// size) or ratio:SHARE (of at least this share of the largest).
    #[arg(long, value_name = "RULE", value_parser = rank_rule)]
    rank: RankRule,
    /// Form of the result. Default: that of the input.
    #[arg(long, value_name = "FORMAT", value_parser = named::<Format>(FORMATS))]
    format: Option<Format>,
    /// Number type of the result. Default: that of the input.
    #[arg(long, value_name = "TYPE", value_parser = named::<Dtype>(DTYPES))]
    dtype: Option<Dtype>,
    /// The file, or with peft the folder, to write.
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Also write what was done to every layer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    spare(
        [args.adapter.as_path()],
        std::iter::once(args.out.as_path()).chain(args.report.as_deref()),
    )?;
    let report_out = args.report.as_deref().map(Output::create).transpose()?;
    let adapter = load_lora(&args.adapter)?;
    let (format, dtype) = match &adapter.source {
        Some(source) => (source.format, widest(&source.dtypes)),
        None => (Format::default(), Dtype::default()),
    };
    let output = AdapterOutput::create(
        &args.out,
        args.format.unwrap_or(format),
        args.dtype.unwrap_or(dtype),
    )?;
    let (small, report) = adapter.resize(args.rank)?;
    let written = output.finish(&small)?;
    if let (Some(output), Some(path)) = (report_out, &args.report) {
        output.finish_with(&to_json(path, &report)?)?;
    }
    say(format_args!("wrote {written}"));
    say(describe(&report, adapter.parameters(), small.parameters()));
    Ok(())
}

fn describe(report: &ResizeReport, before: usize, after: usize) -> String {
    let range = |ranks: Vec<usize>| match (ranks.iter().min(), ranks.iter().max()) {
        (Some(least), Some(most)) if least == most => most.to_string(),
        (least, most) => format!(
            "{} to {}",
            least.copied().unwrap_or(0),
            most.copied().unwrap_or(0)
        ),
    };
    let modules = report.modules.iter();
    format!(
        "{} modules: rank {}, before {}; {} parameters, before {}; {:.3} % of the norm was cut off",
        HumanCount(report.modules.len() as u64),
        range(modules.clone().map(|module| module.cut.rank).collect()),
        range(modules.map(|module| module.before).collect()),
        HumanCount(after as u64),
        HumanCount(before as u64),
        report.error * 100.0,
    )
}
