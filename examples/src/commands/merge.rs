//! `selma merge`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount};
use selma_durable::to_json;
use selma_lora::merge::{Majority, Masks, ModuleWeight};
use selma_lora::{Adapter, Dtype, Format, Merge, MergeReport, Method, Weighted};

use super::values::{WeightedFile, named, weighted_file};
use crate::output::{Output, spare};
use crate::terminal::say;

/// Merge LoRA adapters into one.
///
/// Every adapter adds an update dW = alpha / rank * B A to the layers of a model. "mean" and "sum" merge these updates
/// exactly, at a rank that is the sum of the ranks; "svd" is the best approximation of the mean at a smaller rank;
/// "factor_mean" averages the factors A and B themselves, as the paper writes it. Names that begin with peft_ and mk_ give what PEFT and
/// mergekit give, "kohya" what kohya's script gives; the others are those of papers. docs/merging.md says which to take when. An option that
/// a method does not know is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma merge --method mean --out merged.safetensors coco.safetensors whoops.safetensors
  selma merge --method svd --rank 16 --dtype f16 --out merged.safetensors coco.safetensors whoops.safetensors=0.5
  selma merge --method core_ties --density 0.3 --out merged.safetensors coco.safetensors whoops.safetensors")]
pub struct Args {
    /// How the updates become one.
    #[arg(long, value_name = "NAME", value_parser = named::<Method>(Method::ALL.map(Method::name)))]
    method: Method,
    /// Largest rank of the result. Without it "svd" and the methods on dense updates take the largest rank of the inputs, and the others keep all.
    #[arg(long, value_name = "R")]
    rank: Option<NonZeroUsize>,
    /// The share of entries that stay, above 0 and up to 1.
    #[arg(long, value_name = "D")]
    density: Option<f64>,
    /// What the merged update is multiplied by.
    #[arg(long, value_name = "L")]
    lambda: Option<f64>,
    /// DELLA: how far the probability of staying varies around the density.
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// Breadcrumbs: the share of the largest entries that are dropped.
    #[arg(long, value_name = "G")]
    gamma: Option<f64>,
    /// TIES: what decides the sign of an entry, the sum of the values (total) or the number of adapters (frequency).
    #[arg(long, value_name = "NAME", default_value = "total", value_parser = ["total", "frequency"])]
    majority: String,
    /// mergekit: whether the result is divided by the weights.
    #[arg(long, value_name = "true|false")]
    normalize: Option<bool>,
    /// Seed of random masks.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Masks to be used instead of random ones: a safetensors file.
    #[arg(long, value_name = "FILE")]
    masks: Option<PathBuf>,
    /// Factors on the weights in parts of the model, as JSON: [{"module": REGEX, "adapter": NUMBER or left out, "weight": FACTOR}, ...].
    #[arg(long, value_name = "FILE.json")]
    weights_by_module: Option<PathBuf>,
    /// Names of the tensors in the file: kohya is read by most programs, diffusers by PEFT and diffusers.
    #[arg(long, value_name = "NAME", default_value = "kohya", value_parser = named::<Format>(["kohya", "diffusers"]))]
    format: Format,
    /// Number type of the file.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = named::<Dtype>(["f32", "f16", "bf16"]))]
    dtype: Dtype,
    /// The merged adapter.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write what the merge did to every layer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Adapters, in any format and of any ranks. A weight multiplies an adapter's update; it is 1 if none is given.
    #[arg(required = true, value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    spare(
        args.adapters.iter().map(|adapter| adapter.path.as_path()),
        std::iter::once(args.out.as_path()).chain(args.report.as_deref()),
    )?;
    let mut out = Output::create(&args.out)?;
    let mut report_out = args.report.as_deref().map(Output::create).transpose()?;
    let loaded = args
        .adapters
        .iter()
        .map(|file| Ok((Adapter::load(&file.path)?, file.weight)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let inputs: Vec<Weighted<'_>> = loaded
        .iter()
        .map(|(adapter, weight)| Weighted {
            adapter,
            weight: *weight,
        })
        .collect();
    let merge = args.recipe()?;
    let (merged, report) = merge.run(&inputs)?;
    let bytes = merged.to_bytes(args.format, args.dtype)?;
    out.write(&bytes)?;
    if let (Some(output), Some(path)) = (&mut report_out, &args.report) {
        output.write(&to_json(path, &report)?)?;
    }
    out.finish()?;
    if let Some(output) = report_out {
        output.finish()?;
    }
    say(format_args!(
        "merged {} adapters by {} into {} ({}, {} {})",
        inputs.len(),
        args.method,
        args.out.display(),
        HumanBytes(bytes.len() as u64),
        args.format,
        args.dtype_name(),
    ));
    say(describe(&report));
    Ok(())
}

impl Args {
    fn recipe(&self) -> anyhow::Result<Merge> {
        let weights_by_module = match &self.weights_by_module {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_slice::<Vec<ModuleWeight>>(&text)
                    .with_context(|| format!("{} is not valid", path.display()))?
            }
        };
        Ok(Merge {
            rank: self.rank.map(NonZeroUsize::get),
            density: self.density,
            lambda: self.lambda,
            epsilon: self.epsilon,
            gamma: self.gamma,
            majority: match self.majority.as_str() {
                "frequency" => Majority::Frequency,
                _ => Majority::Total,
            },
            normalize: self.normalize,
            seed: self.seed,
            weights_by_module,
            masks: self
                .masks
                .as_ref()
                .map(Masks::load)
                .transpose()?
                .map(Arc::new),
            ..Merge::new(self.method)
        })
    }

    fn dtype_name(&self) -> &'static str {
        match self.dtype {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::BF16 => "bf16",
        }
    }
}

fn describe(report: &MergeReport) -> String {
    let ranks = || report.modules.iter().map(|module| module.rank);
    let (least, most) = (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0));
    let rank = if least == most {
        format!("rank {most}")
    } else {
        format!("ranks {least} to {most}")
    };
    format!(
        "{} modules of {rank}, norm {:.4}, truncation error {:.2e}, self-check {:.1e}",
        HumanCount(report.modules.len() as u64),
        report.norm,
        report.truncation_error,
        report.self_check,
    )
}
