//! Adapters for a picture.

use std::path::Path;

use anyhow::Context;
use selma_diffusion::StableDiffusion;
use selma_lora::Adapter;

use crate::commands::values::WeightedFile;
use crate::terminal::say;

/// Adds the adapters to the model, in the weights if `fuse`, and says what they reach.
pub fn attach(
    pipeline: &mut StableDiffusion,
    model: &Path,
    adapters: &[(&WeightedFile, Adapter)],
    fuse: bool,
) -> anyhow::Result<()> {
    for (index, (file, adapter)) in adapters.iter().enumerate() {
        let path = file.path.display();
        let reports = pipeline
            .attach(adapter, &format!("adapter {index}"), file.weight)
            .with_context(|| format!("{path} does not fit {}", model.display()))?;
        let matched: usize = reports.iter().map(|report| report.matched.len()).sum();
        let zero: usize = reports.iter().map(|report| report.zero.len()).sum();
        let weight = file.weight;
        say(format_args!("{path}: {matched} layers, weight {weight}"));
        if zero == matched {
            say(format_args!(
                "warning: {path} changes nothing, all its updates are zero"
            ));
        }
    }
    if fuse {
        let layers = pipeline.fuse();
        say(format_args!("fused into the weights of {layers} layers"));
    }
    Ok(())
}
