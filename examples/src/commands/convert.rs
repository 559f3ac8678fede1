//! `selma convert`.

use std::path::PathBuf;

use anyhow::Context;
use indicatif::HumanCount;
use selma_lora::{Adapter, AdapterFile, Dtype, Format, Kind, Model, RankRule};
use serde_json::json;

use super::adapter_out::{AdapterOutput, DTYPES, FORMATS, widest};
use super::model::FileOptions;
use super::values::{advise, named, rank_rule};
use crate::output::spare;
use crate::terminal::say;

/// Write a LoRA adapter in the form that another program reads.
///
/// The form of the input is found out by itself. "kohya" is read by most programs that draw (ComfyUI, A1111, Forge, sd-scripts, diffusers);
/// "diffusers" is what diffusers' save_lora_weights writes, "diffusers_script" what its training scripts write; "peft" is a folder with
/// adapter_config.json and adapter_model.safetensors. The updates stay the same up to rounding. A LoHa, a LoKr or a full difference becomes a LoRA
/// of the rank that you give, and so does a DoRA where the model that it is for is given, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma convert lora.safetensors --to peft --out lora-peft
  selma convert lora-peft --to kohya --dtype f16 --out lora.safetensors
  selma convert loha.safetensors --to kohya --rank energy:0.99 --model sd1 --out lora.safetensors
  selma convert dora.safetensors --to kohya --rank 64 --base v1-5-pruned-emaonly.safetensors --out lora.safetensors
  selma convert locon.safetensors --to kohya --rank 32 --without-rest --out lora.safetensors")]
pub struct Args {
    /// An adapter file, or a folder of PEFT.
    #[arg(value_name = "FILE|DIR")]
    adapter: PathBuf,
    /// The form to write.
    #[arg(long, value_name = "FORMAT", value_parser = named::<Format>(FORMATS))]
    to: Format,
    /// Number type to write. Default: that of the input.
    #[arg(long, value_name = "TYPE", value_parser = named::<Dtype>(DTYPES))]
    dtype: Option<Dtype>,
    /// For what is no LoRA: the rank, as a number, or as energy:SHARE (as few as hold this share of the squared norm), threshold:SIZE (singular
    /// values of at least this size) or ratio:SHARE (of at least this share of the largest).
    #[arg(long, value_name = "RULE", value_parser = rank_rule)]
    rank: Option<RankRule>,
    /// Leave out what no LoRA can stand for (trained biases, norms, embeddings, ..) instead of refusing the file. Needs --rank.
    #[arg(long, requires = "rank")]
    without_rest: bool,
    /// The model that the adapter is for, whose list of layers tells names and shapes. Needed for a LoHa or LoKr of convolutions.
    #[arg(long, value_name = "NAME", value_parser = named::<Model>(["sd1", "sd2", "sdxl"]))]
    model: Option<Model>,
    /// The model that the adapter is for itself: a folder in diffusers' layout, a file with the whole model, or the id of one on the Hugging Face Hub.
    /// Needed for a DoRA, whose update depends on the weights.
    #[arg(
        long,
        value_name = "DIR|FILE|ID",
        requires = "rank",
        conflicts_with = "model"
    )]
    base: Option<PathBuf>,
    /// The file, or with peft the folder, to write.
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    spare([args.adapter.as_path()], [args.out.as_path()])?;
    let names = args.model.map(Model::names).transpose()?;
    let path = &args.adapter;
    let (adapter, dtypes) = if let Some(rule) = args.rank {
        let file = if args.without_rest {
            let (file, left_out) =
                AdapterFile::load_without(path, names.as_ref()).map_err(advise)?;
            for tensor in left_out {
                say(format_args!("left out {}: {}", tensor.key, tensor.kind));
            }
            file
        } else {
            AdapterFile::load(path, names.as_ref()).map_err(advise)?
        };
        let dtypes = file.source.dtypes.clone();
        let context = || format!("cannot convert {}", path.display());
        let (adapter, report) = match &args.base {
            Some(base) => {
                let checkpoint = FileOptions::default().open(base)?;
                checkpoint.to_lora(file, rule).with_context(context)?
            }
            None => file
                .into_adapter(rule, args.model.map(Model::modules))
                .with_context(context)?,
        };
        let approximated = report
            .modules
            .iter()
            .filter(|module| module.kind != Kind::Lora);
        say(format_args!(
            "{} of {} modules became LoRAs, {:.3} % of the norm was cut off",
            HumanCount(approximated.count() as u64),
            HumanCount(report.modules.len() as u64),
            report.error * 100.0
        ));
        (adapter, dtypes)
    } else {
        let mut adapter = match &names {
            Some(names) => Adapter::load_with(path, names),
            None => Adapter::load(path),
        }
        .map_err(advise)?;
        let source = adapter.source.take();
        let (sha256, dtypes) = source.map(|source| (source.sha256, source.dtypes)).unzip();
        let recipe = json!({"input": sha256}).to_string();
        adapter.metadata.insert("selma_convert".to_owned(), recipe);
        (adapter, dtypes.unwrap_or_default())
    };
    let dtype = args.dtype.unwrap_or_else(|| widest(&dtypes));
    let output = AdapterOutput::create(&args.out, args.to, dtype)?;
    let modules = adapter.modules.len();
    let written = output.finish(&adapter)?;
    say(format_args!(
        "wrote {written}: {} modules",
        HumanCount(modules as u64)
    ));
    Ok(())
}
