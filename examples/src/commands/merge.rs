//! `selma merge`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use indicatif::HumanCount;
use selma_durable::to_json;
use selma_lora::merge::{AdapterOptions, Calibration, Majority, Masks, ModuleWeight};
use selma_lora::{AdapterReader, Dtype, Format, Merge, MergeReport, Method};

use super::adapter_out::{AdapterOutput, DTYPES, FORMATS, written};
use super::values::{WeightedFile, advise, load_weighted, named, weighted, weighted_file};
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
    /// The share of entries that stay, above 0 and up to 1: one number, or one for each adapter.
    #[arg(long, value_name = "D[,D...]", value_delimiter = ',')]
    density: Vec<f64>,
    /// What the merged update is multiplied by.
    #[arg(long, value_name = "L")]
    lambda: Option<f64>,
    /// DELLA: how far the probability of staying varies around the density, for all adapters or for each.
    #[arg(long, value_name = "E[,E...]", value_delimiter = ',')]
    epsilon: Vec<f64>,
    /// Breadcrumbs: the share of the largest entries that are dropped, for all adapters or for each.
    #[arg(long, value_name = "G[,G...]", value_delimiter = ',')]
    gamma: Vec<f64>,
    /// mergekit: whether what stays makes up for what was dropped.
    #[arg(long, value_name = "true|false")]
    rescale: Option<bool>,
    /// TIES: what decides the sign of an entry, the sum of the values (total) or the number of adapters (frequency).
    #[arg(long, value_name = "NAME", default_value = "total", value_parser = ["total", "frequency"])]
    majority: String,
    /// mergekit: whether the result is divided by the weights.
    #[arg(long, value_name = "true|false")]
    normalize: Option<bool>,
    /// Seed of random masks; for a method that draws none only 0.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Masks to be used instead of random ones: a safetensors file.
    #[arg(long, value_name = "FILE")]
    masks: Option<PathBuf>,
    /// SSR: statistics of what the model gives to the adapters, which it needs: a safetensors file (docs/merging.md says of what).
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// SSR: what is added to the diagonal before solving, 1e-4 without it.
    #[arg(long, value_name = "X")]
    ridge: Option<f64>,
    /// Methods on dense updates: how many bytes those of one layer may take, 4294967296 without it; each thread has a layer at a time.
    #[arg(long, value_name = "BYTES")]
    dense_limit: Option<u64>,
    /// Factors on the weights in parts of the model, as JSON: [{"module": REGEX, "adapter": NUMBER or left out, "weight": FACTOR}, ...].
    #[arg(long, value_name = "FILE.json")]
    weights_by_module: Option<PathBuf>,
    /// Form of the merged adapter: kohya is read by most programs, diffusers by diffusers; peft is a folder that PEFT reads.
    #[arg(long, value_name = "FORMAT", default_value = "kohya", value_parser = named::<Format>(FORMATS))]
    format: Format,
    /// Number type of the merged adapter.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = named::<Dtype>(DTYPES))]
    dtype: Dtype,
    /// The merged adapter: a file, or with peft a folder.
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Also write what the merge did to every layer, as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Adapters: files of any format, or folders of PEFT, of any ranks. A weight multiplies an adapter's update; it is 1 if none is given.
    #[arg(required = true, value_name = "FILE[=WEIGHT]", value_parser = weighted_file())]
    adapters: Vec<WeightedFile>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let options = [&args.masks, &args.calibration, &args.weights_by_module];
    let adapters = args.adapters.iter().map(|adapter| adapter.path.as_path());
    spare(
        adapters.chain(options.into_iter().filter_map(|file| file.as_deref())),
        std::iter::once(args.out.as_path()).chain(args.report.as_deref()),
    )?;
    let out = AdapterOutput::create(&args.out, args.format, args.dtype)?;
    let report_out = args.report.as_deref().map(Output::create).transpose()?;
    let merge = args.recipe()?;
    let (report, written) = if out.is_on_disk() {
        drop(out);
        on_disk(&args, &merge)?
    } else {
        in_memory(&args.adapters, &merge, out)?
    };
    if let (Some(output), Some(path)) = (report_out, &args.report) {
        output.finish_with(&to_json(path, &report)?)?;
    }
    say(format_args!(
        "merged {} adapters by {} into {written}",
        args.adapters.len(),
        args.method,
    ));
    say(describe(&report));
    Ok(())
}

/// A layer at a time, however large the adapters are.
fn on_disk(args: &Args, merge: &Merge) -> anyhow::Result<(MergeReport, String)> {
    let paths = args.adapters.iter().map(|file| &file.path);
    let opened = AdapterReader::open_all(paths).map_err(advise)?;
    let weights = args.adapters.iter().map(|file| file.weight);
    let inputs: Vec<selma_lora::WeightedFile<'_>> = opened
        .iter()
        .zip(weights)
        .map(|(adapter, weight)| selma_lora::WeightedFile { adapter, weight })
        .collect();
    let report = merge.run_files(&inputs, &args.out, args.format, args.dtype)?;
    Ok((report, written(&args.out, args.format, args.dtype)))
}

/// For standard output and devices, which cannot be written out of order.
fn in_memory(
    files: &[WeightedFile],
    merge: &Merge,
    out: AdapterOutput,
) -> anyhow::Result<(MergeReport, String)> {
    let loaded = load_weighted(files)?;
    let (merged, report) = merge.run(&weighted(&loaded))?;
    Ok((report, out.finish(&merged)?))
}

/// The value of an option that was given once.
fn for_all(values: &[f64]) -> Option<f64> {
    match values {
        [value] => Some(*value),
        _ => None,
    }
}

impl Args {
    /// The options that were given for each adapter.
    fn by_adapter(&self) -> anyhow::Result<Vec<AdapterOptions>> {
        let count = self.adapters.len();
        let lists = [
            ("density", &self.density),
            ("epsilon", &self.epsilon),
            ("gamma", &self.gamma),
        ];
        for (name, values) in lists {
            ensure!(
                values.len() <= 1 || values.len() == count,
                "--{name} has {} values, expected one or {count}, one for each adapter",
                values.len()
            );
        }
        if lists.iter().all(|(_, values)| values.len() <= 1) {
            return Ok(Vec::new());
        }
        let own = |values: &[f64], at: usize| values.get(at).copied().filter(|_| values.len() > 1);
        let options = (0..count).map(|at| AdapterOptions {
            density: own(&self.density, at),
            epsilon: own(&self.epsilon, at),
            gamma: own(&self.gamma, at),
        });
        Ok(options.collect())
    }

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
            density: for_all(&self.density),
            lambda: self.lambda,
            epsilon: for_all(&self.epsilon),
            gamma: for_all(&self.gamma),
            by_adapter: self.by_adapter()?,
            rescale: self.rescale,
            majority: match self.majority.as_str() {
                "frequency" => Majority::Frequency,
                _ => Majority::Total,
            },
            normalize: self.normalize,
            ridge: self.ridge,
            seed: self.seed,
            dense_limit: self.dense_limit,
            weights_by_module,
            masks: self
                .masks
                .as_ref()
                .map(Masks::load)
                .transpose()?
                .map(Arc::new),
            calibration: self
                .calibration
                .as_ref()
                .map(Calibration::load)
                .transpose()?
                .map(Arc::new),
            ..Merge::new(self.method)
        })
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
        "{} modules of {rank}, norm {:.4}, truncation error {:.2e}, self-check {:.1e}, rounding {:.1e}",
        HumanCount(report.modules.len() as u64),
        report.norm,
        report.truncation_error,
        report.self_check,
        report.rounding,
    )
}
