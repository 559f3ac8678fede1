//! `selma train router` and `selma train weights`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::ensure;
use selma_lora::{Adapter, Mixture};
use selma_train::TrainConfig;

use super::{TrainArgs, base_config, config, train};
use crate::commands::data::{DataOptions, SelectOptions};
use crate::commands::values::load_lora;

/// The paper's rate for routers (appendix I).
const ROUTER_RATE: f64 = 1e-5;
/// Weights begin at one over the number of experts and have no scale of their own; no rate was published for pictures.
const WEIGHTS_RATE: f64 = 1e-3;

/// Train a router over frozen experts (MoE-LoRA).
///
/// In every layer that the experts adapt, a linear router looks at each input and says how much of each expert is added for it. The experts stay as they are
/// and only the routers are trained, as a rule on the data of all experts together. --out gets mixture.safetensors, with which `selma generate`
/// and `selma images` draw (--mixture); it cannot be fused or merged. Without --config the learning rate is the paper's for routers, 1e-5.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma train router --model models/mini --data images/coco --data images/whoops --experts experts/coco/adapter.safetensors experts/whoops/adapter.safetensors --out router
  selma generate --model models/mini --mixture router/mixture.safetensors --prompt \"a red circle\" --out circle.png")]
pub struct RouterArgs {
    #[command(flatten)]
    experts: ExpertArgs,
    /// Give each input to so many experts, those with the largest weights, 2 at least. Default: to all.
    #[arg(long, value_name = "K")]
    top_k: Option<NonZeroUsize>,
    /// Train the experts with the router. In the paper that was worse.
    #[arg(long)]
    joint: bool,
    #[command(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    reading: DataOptions,
    #[command(flatten)]
    selection: SelectOptions,
}

/// Train a weight for each expert in every layer (CAT).
///
/// The experts stay as they are. --out gets weights.json, with which `selma merge --method sum --weights-by-module` makes one adapter of the experts, and
/// mixture.safetensors, which draws the same before they are merged. Without --config the learning rate is 1e-3, without weight decay.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma train weights --model models/mini --data images/coco --data images/whoops --experts coco.safetensors whoops.safetensors --out weights
  selma merge --method sum --weights-by-module weights/weights.json --out merged.safetensors coco.safetensors whoops.safetensors")]
pub struct WeightsArgs {
    #[command(flatten)]
    experts: ExpertArgs,
    #[command(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    reading: DataOptions,
    #[command(flatten)]
    selection: SelectOptions,
}

#[derive(Debug, clap::Args)]
struct ExpertArgs {
    /// The experts: LoRAs of linear layers, of any format and of any ranks.
    #[arg(long, value_name = "ADAPTER", num_args = 1.., required = true)]
    experts: Vec<PathBuf>,
}

impl ExpertArgs {
    /// Reads the experts and makes a mixture of them.
    fn mixed(
        &self,
        args: &TrainArgs,
        mix: impl FnOnce(&[&Adapter]) -> Result<Mixture, selma_lora::LoraError>,
    ) -> anyhow::Result<Mixture> {
        ensure!(
            args.rank.is_none(),
            "--rank is for one adapter; experts keep their own"
        );
        let experts = self.experts.iter().map(|path| load_lora(path));
        let experts = experts.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(mix(&experts.iter().collect::<Vec<_>>())?)
    }
}

pub fn router(args: &RouterArgs) -> anyhow::Result<()> {
    let mut start = base_config(&args.train)?;
    if args.train.config.is_none() {
        start.learning_rate = ROUTER_RATE;
    }
    start.train_experts |= args.joint;
    let config = config(&args.train, start)?;
    let mixture = args.experts.mixed(&args.train, |experts| {
        let top_k = args.top_k.map_or(experts.len(), NonZeroUsize::get);
        Mixture::router(experts, top_k, config.seed)
    })?;
    let (reading, selection) = (&args.reading, &args.selection);
    train(&args.train, reading, selection, config, Some(&mixture))
}

pub fn weights(args: &WeightsArgs) -> anyhow::Result<()> {
    let mut start = base_config(&args.train)?;
    if args.train.config.is_none() {
        start = TrainConfig {
            learning_rate: WEIGHTS_RATE,
            weight_decay: 0.0,
            ..start
        };
    }
    ensure!(
        !start.train_experts,
        "train_experts is for routers: weights that are to merge experts need these as they are"
    );
    let config = config(&args.train, start)?;
    let mixture = args.experts.mixed(&args.train, Mixture::weights)?;
    let (reading, selection) = (&args.reading, &args.selection);
    train(&args.train, reading, selection, config, Some(&mixture))
}
