//! `selma pretrain`.

use std::path::PathBuf;

use selma::pretrain::{PretrainRecipe, PretrainStage};
use selma_diffusion::device;

use crate::interrupt;
use crate::progress::Progress;

/// Train the miniature model on rendered scenes alone, from nothing or from where another model is.
///
/// Makes a small Stable Diffusion (tokenizer, VAE, text encoder, UNet) in diffusers' folder layout. The model that comes
/// with this repository was made like this, in two halves. Each takes about an hour on two cores. Stopped at any time, the same
/// command goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma pretrain recipes/mini-pretrain.toml --out models/mini-1
  selma pretrain recipes/mini-further-pretrain.toml --out models/my-mini")]
pub struct Args {
    /// What to train, as a TOML file.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Folder for the model; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "D", default_value = "flex")]
    device: String,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let recipe = PretrainRecipe::load(&args.recipe)?;
    let device = device(&args.device)?;
    let mut current: Option<(PretrainStage, Progress)> = None;
    recipe.run(&args.out, &device, &mut |stage, progress| {
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, finished)) = current.take() {
                finished.finish();
            }
            let name = match stage {
                PretrainStage::Vae => "VAE",
                PretrainStage::Denoiser => "text encoder and UNet",
            };
            let before = progress.step.saturating_sub(1) as u64;
            let bar = Progress::new(name, progress.steps as u64, "steps");
            current = Some((stage, bar.resumed_at(before)));
        }
        if let Some((_, bar)) = &mut current {
            bar.set(progress.step as u64, format!("loss {:.4}", progress.loss));
        }
        interrupt::flow()
    })?;
    if let Some((_, bar)) = current {
        bar.finish();
    }
    Ok(())
}
